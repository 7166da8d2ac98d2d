"""The subscription to the camera, and the watch over whether anything comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from moving_object_detector.nodes.config import NodeConfig
from moving_object_detector.nodes.qos import checked_overrides, overridable, sensor_qos
from moving_object_detector.nodes.silence import explain_silence


def image_topic(node: Node, transport: str) -> str:
    """Return the full name of the topic that images come on, remapped."""
    topic = str(node.resolve_topic_name('image'))
    return topic if transport == 'raw' else str(node.resolve_topic_name(f'{topic}/compressed'))


class Camera:
    """Subscribes to images.

    Args:
        node: Who subscribes.
        config: Transport and time-out.
        receive: Called with each message.
        fell_silent: Called once when no image has come for ``input.timeout`` seconds.

    Raises:
        UserError: A ``qos_overrides`` parameter is wrong.

    """

    def __init__(
        self, node: Node, config: NodeConfig, receive: Callable[[Any], None], fell_silent: Callable[[], None]
    ) -> None:
        self.topic = image_topic(node, config.transport)
        self._node = node
        self._receive = receive
        self._fell_silent = fell_silent
        self._timeout = config.input.timeout
        self._last = time.monotonic()
        self.silent = False
        """Whether no image has come for ``input.timeout`` seconds, as far as :meth:`trouble` has looked."""
        message = Image if config.transport == 'raw' else CompressedImage
        self._kind = f'sensor_msgs/msg/{message.__name__}'
        with checked_overrides(self.topic):
            self._subscription = node.create_subscription(
                message, self.topic, self._on_message, sensor_qos(), qos_overriding_options=overridable()
            )

    def _on_message(self, message: Any) -> None:
        self._last = time.monotonic()
        if self.silent:
            self.silent = False
            self._node.get_logger().info(f'images come again on {self.topic}')
        self._receive(message)

    def trouble(self) -> str:
        """Say why no image comes, or what is wrong with how they come; empty when all is well."""
        silence = time.monotonic() - self._last
        if silence > self._timeout:
            if not self.silent:
                self.silent = True
                self._fell_silent()
            reason = explain_silence(self._node, self.topic, self._kind, self._subscription.qos_profile)
            return f'no image for {silence:.0f} s: {reason}'
        publishers = self._node.count_publishers(self.topic)
        if publishers > 1:
            return (
                f'{publishers} publishers on {self.topic}: their images mix, and detection starts anew at each change; '
                'give each camera a topic and a node of its own'
            )
        return ''

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)
