"""The topics on which results go out; what nobody subscribes to is not computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Float64, Header

from moving_object_detector.detection.overlay import draw_overlay
from moving_object_detector.detection.result import Result
from moving_object_detector.nodes.detections import detection_format
from moving_object_detector.nodes.messages import image_message

DEBUG_TOPICS = ('processing_time_ms', 'pipeline_latency_ms', 'cyclic_time_ms')


@dataclass(frozen=True)
class _Output:
    publisher: Publisher[Any]
    message: Callable[[Result, Header], Any]


class Outputs:
    """Publishers of results and timings, reliable unless overridden by ``qos_overrides`` parameters."""

    def __init__(self, node: Node) -> None:
        self._node = node
        kind, detections = detection_format()
        self._outputs = [
            _Output(self._advertise(Image, 'mask'), lambda r, h: image_message(r.mask, 'mono8', h)),
            _Output(self._advertise(Image, 'probability'), lambda r, h: image_message(r.probability, '32FC1', h)),
            _Output(
                self._advertise(Image, 'overlay'),
                lambda r, h: image_message(draw_overlay(r.image, r.mask, r.regions), 'bgr8', h),
            ),
            _Output(self._advertise(Image, 'flow'), lambda r, h: image_message(r.flow, '32FC2', h)),
            _Output(self._advertise(kind, 'detections'), lambda r, h: detections(r.regions, h)),
        ]
        self._timings = {name: self._advertise(Float64, f'debug/{name}') for name in DEBUG_TOPICS}

    def _advertise(self, kind: type, name: str) -> Publisher[Any]:
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        overriding = QoSOverridingOptions.with_default_policies()
        return self._node.create_publisher(kind, f'~/{name}', qos, qos_overriding_options=overriding)

    def wanted(self) -> bool:
        """Whether anybody subscribes to a result."""
        return any(output.publisher.get_subscription_count() for output in self._outputs)

    def publish(self, result: Result, header: Header) -> None:
        """Send one result to whoever subscribes; ``header`` is that of the result's own image."""
        for output in self._outputs:
            if output.publisher.get_subscription_count():
                output.publisher.publish(output.message(result, header))

    def publish_timings(self, processing: float, latency: float, cycle: float) -> None:
        """Send the timings of one frame, given in seconds, as milliseconds."""
        for publisher, seconds in zip(self._timings.values(), (processing, latency, cycle), strict=True):
            publisher.publish(Float64(data=1000.0 * seconds))

    def destroy(self) -> None:
        """Take the topics back."""
        for publisher in (*(output.publisher for output in self._outputs), *self._timings.values()):
            self._node.destroy_publisher(publisher)
