"""Show the detector's results live: a page for any browser, and a server for the Foxglove app where it is installed."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from moving_object_detector.nodes.runtime import ros_node, run_node, spinning, split_arguments

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rclpy.node import Node

PAGE_PORT: Final = 8766
FOXGLOVE_PORT: Final = 8765
PICTURES: Final = ('overlay', 'mask', 'probability', 'flow')
TIMINGS: Final = ('pipeline_latency_ms', 'cyclic_time_ms')
_LONGEST_SIDE: Final = 960
"""Of a picture that is sent, pixels."""
_FOLLOW_SECONDS: Final = 0.2
_LINGER_SECONDS: Final = 1.0
"""After the last look, so that a page that is loaded anew finds the topic still subscribed to."""


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='view',
        description=__doc__,
        epilog='Subscribes only to what is looked at. Ends with Ctrl-C. ROS arguments (remapping) follow --ros-args.',
    )
    parser.add_argument('--detector', metavar='NODE', default='detect', help='name of the node (default: %(default)s)')
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to listen on; 0.0.0.0: whoever reaches it (default: %(default)s)'
    )
    parser.add_argument('--port', type=int, default=PAGE_PORT, help='of the page; 0: a free one (default: %(default)s)')
    parser.add_argument(
        '--foxglove-port',
        type=int,
        default=FOXGLOVE_PORT,
        help='for the Foxglove app, where foxglove-sdk is installed; 0: do without (default: %(default)s)',
    )
    parser.add_argument('--open', action='store_true', help='open the page in a browser, where there is a display')
    return parser.parse_args(argv)


@dataclass
class Shot:
    """One message of a feed."""

    feed: Feed
    message: Any

    @cached_property
    def jpeg(self) -> bytes:
        """The picture as JPEG, made when the first viewer asks."""
        import cv2
        import numpy as np

        from moving_object_detector.media.codecs import encode_jpeg

        image = picture_of(self.feed.name, self.message)
        scale = min(_LONGEST_SIDE / max(image.shape[:2]), 1)
        smaller = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return encode_jpeg(np.asarray(smaller, np.uint8)).tobytes()


def picture_of(name: str, message: Any) -> NDArray[np.uint8]:
    """Turn a result of the detector into a picture (H, W, 3) uint8 RGB.

    Probability is painted from dark (0) to yellow (1), flow by the wheel of the Middlebury benchmark.
    """
    import cv2
    import numpy as np

    from moving_object_detector.media.pictures import flow_colours
    from moving_object_detector.nodes.messages import read_image

    if name == 'flow':
        return flow_colours(np.frombuffer(message.data, '<f4').reshape(message.height, message.width, 2))
    if name == 'probability':
        shares = np.frombuffer(message.data, '<f4').reshape(message.height, message.width)
        painted = cv2.applyColorMap(np.asarray(shares * 255, np.uint8), cv2.COLORMAP_INFERNO)
        return np.asarray(cv2.cvtColor(painted, cv2.COLOR_BGR2RGB), np.uint8)
    return read_image(message)


@dataclass
class Feed:
    """One topic, subscribed to while anybody looks."""

    name: str
    kind: type
    topic: str
    wanted: Callable[[Any], bool] = lambda _: True
    lookers: int = 0
    last_look: float = 0.0
    newest: Shot | None = None
    subscription: Any = field(default=None, repr=False)


class Feeds:
    """The topics of a detector for viewers that come and go; a slow viewer gets fewer messages, never old ones.

    Args:
        node: Subscribes; somebody spins it.
        detector: Name of the detector's node, which may be relative.

    """

    def __init__(self, node: Node, detector: str) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.clock import Clock, ClockType
        from sensor_msgs.msg import Image
        from std_msgs.msg import Float64

        self.detector = str(node.resolve_topic_name(detector))
        kinds = [
            Feed('diagnostics', DiagnosticArray, '/diagnostics', self._is_ours),
            *(Feed(name, Image, f'{self.detector}/{name}') for name in PICTURES),
            *(Feed(name, Float64, f'{self.detector}/debug/{name}') for name in TIMINGS),
        ]
        self.by_name = {feed.name: feed for feed in kinds}
        self._node = node
        self._changed = threading.Condition()
        # All subscribing is done by the spinning thread: rclpy is not made for more.
        self._timer = node.create_timer(_FOLLOW_SECONDS, self._follow, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _is_ours(self, message: Any) -> bool:
        return any(status.hardware_id == self.detector for status in message.status)

    def _follow(self) -> None:
        from rclpy.qos import QoSProfile

        now = time.monotonic()
        for feed in self.by_name.values():
            if feed.lookers:
                feed.last_look = now
                if feed.subscription is None:
                    feed.subscription = self._node.create_subscription(
                        feed.kind,
                        feed.topic,
                        lambda message, feed=feed: self._on_message(feed, message),
                        QoSProfile(depth=2),
                    )
            elif feed.subscription is not None and now - feed.last_look > _LINGER_SECONDS:
                self._node.destroy_subscription(feed.subscription)
                feed.subscription = feed.newest = None

    def _on_message(self, feed: Feed, message: Any) -> None:
        if feed.wanted(message):
            with self._changed:
                feed.newest = Shot(feed, message)
                self._changed.notify_all()

    def look(self, name: str) -> None:
        """Ask for a feed's messages until :meth:`leave`."""
        with self._changed:
            self.by_name[name].lookers += 1

    def leave(self, name: str) -> None:
        """End one :meth:`look`."""
        with self._changed:
            self.by_name[name].lookers -= 1

    @contextmanager
    def looking(self, names: Iterable[str]) -> Iterator[None]:
        """Look at several feeds while the context lives."""
        with ExitStack() as looks:
            for name in names:
                self.look(name)
                looks.callback(self.leave, name)
            yield

    @contextmanager
    def complaining(self, shot: Shot) -> Iterator[None]:
        """Leave out a message that cannot be shown, with a line in the log."""
        try:
            yield
        except ValueError as error:
            self._node.get_logger().warning(f'{shot.feed.topic}: not shown: {error}', throttle_duration_sec=5.0)

    def fresh(self, seen: dict[str, Shot | None], timeout: float) -> list[Shot]:
        """Wait for messages that are not ``seen`` and note them there; return none after ``timeout`` seconds.

        Args:
            seen: By the names of the feeds that are asked for; ``None`` where nothing was seen.
            timeout: Seconds.

        """

        def news() -> list[Shot]:
            newest = [self.by_name[name].newest for name in seen]
            return [shot for shot in newest if shot is not None and shot is not seen[shot.feed.name]]

        with self._changed:
            self._changed.wait_for(news, timeout)
            shots = news()
        seen.update({shot.feed.name: shot for shot in shots})
        return shots


def _view(arguments: argparse.Namespace, ros_arguments: Sequence[str]) -> int:
    from moving_object_detector.nodes.view_servers import foxglove_server, page_server

    with ros_node('view', ros_arguments) as (node, stop), ExitStack() as servers:
        feeds = Feeds(node, arguments.detector)
        page = servers.enter_context(page_server(feeds, arguments.host, arguments.port))
        say = node.get_logger().info
        say(f'look at {feeds.detector}: {page}')
        if arguments.foxglove_port:
            try:
                app = servers.enter_context(foxglove_server(feeds, arguments.host, arguments.foxglove_port))
                say(f'or in the Foxglove app: {app}, layout config/foxglove_layout.json')
            except ModuleNotFoundError:
                say('foxglove-sdk is not installed, so the Foxglove app finds no server; the page needs none')
        # Without a display a text browser would take the terminal.
        if arguments.open and (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
            import webbrowser

            webbrowser.open(page)
        servers.enter_context(spinning(node))
        stop.wait()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    own, ros = split_arguments(argv)
    arguments = _parse(own)
    return run_node(lambda: _view(arguments, ros))


if __name__ == '__main__':
    sys.exit(main())
