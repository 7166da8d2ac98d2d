"""The program ``view``: a web page with the detector's results, fed by server-sent events."""

from __future__ import annotations

import argparse
import base64
import ipaddress
import json
import os
import threading
import time
import webbrowser
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Float64

from moving_object_detector.common.errors import UserError
from moving_object_detector.media.codecs import encode_jpeg
from moving_object_detector.media.frames import resize_image
from moving_object_detector.media.messages import decode_image
from moving_object_detector.media.pictures import flow_colours
from moving_object_detector.nodes.runtime import ros_node, spinning, topic_name

PICTURES: Final = ('overlay', 'mask', 'probability', 'flow')
TIMINGS: Final = ('pipeline_latency_ms', 'cyclic_time_ms')
_LONGEST_SIDE: Final = 960
"""Longest side of a picture that is sent, pixels."""
_FOLLOW_SECONDS: Final = 0.2
_LINGER_SECONDS: Final = 1.0
"""How long a subscription outlives its last viewer, so that reloading the page does not resubscribe."""
_ALWAYS: Final = ('diagnostics', 'pipeline_latency_ms')
"""Sent to every page; pictures are sent on demand."""
_HEARTBEAT_SECONDS: Final = 1.0
"""Interval of checks whether the browser is still connected."""
_STALL_SECONDS: Final = 20.0
"""Time after which a browser that accepts no data is disconnected."""
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'"
)
"""The page may load nothing but its own stream, no scripts from elsewhere."""


def picture_of(name: str, message: Any) -> NDArray[np.uint8]:
    """Convert a result to a picture (H, W, 3) uint8 RGB; probability goes from dark (0) to yellow (1)."""
    if name == 'flow':
        return flow_colours(np.frombuffer(message.data, '<f4').reshape(message.height, message.width, 2))
    if name == 'probability':
        shares = np.frombuffer(message.data, '<f4').reshape(message.height, message.width)
        painted = cv2.applyColorMap(np.asarray(shares * 255, np.uint8), cv2.COLORMAP_INFERNO)
        return np.asarray(cv2.cvtColor(painted, cv2.COLOR_BGR2RGB), np.uint8)
    return decode_image(message)


@dataclass
class Feed:
    """One topic, subscribed to while it has viewers."""

    kind: type
    topic: str
    last_look: float = 0.0
    newest: Any = None
    subscription: Any = None


class Feeds:
    """The topics of a detector, for viewers that come and go; a slow viewer gets fewer messages, never old ones."""

    def __init__(self, node: Node, detector: str) -> None:
        self.detector = topic_name(node, detector)
        self.by_name = {'diagnostics': Feed(DiagnosticArray, '/diagnostics')}
        self.by_name |= {name: Feed(Image, f'{self.detector}/{name}') for name in PICTURES}
        self.by_name |= {name: Feed(Float64, f'{self.detector}/debug/{name}') for name in TIMINGS}
        self._node = node
        self._lookers: Counter[str] = Counter()
        self._changed = threading.Condition()
        # Only the spinning thread subscribes: rclpy is not thread-safe.
        node.create_timer(_FOLLOW_SECONDS, self._follow, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _follow(self) -> None:
        now = time.monotonic()
        for name, feed in self.by_name.items():
            if self._lookers[name]:
                feed.last_look = now
                if feed.subscription is None:
                    receive = partial(self._on_message, feed)
                    feed.subscription = self._node.create_subscription(feed.kind, feed.topic, receive, 2)
            elif feed.subscription is not None and now - feed.last_look > _LINGER_SECONDS:
                self._node.destroy_subscription(feed.subscription)
                feed.subscription = feed.newest = None

    def _on_message(self, feed: Feed, message: Any) -> None:
        if feed.kind is DiagnosticArray:
            # Keep the status of this detector.
            message = next((status for status in message.status if status.hardware_id == self.detector), None)
        if message is not None:
            with self._changed:
                feed.newest = message
                self._changed.notify_all()

    @contextmanager
    def looking(self, names: Sequence[str]) -> Iterator[None]:
        """Request the messages of several feeds while the context lives."""
        with self._changed:
            self._lookers.update(names)
        try:
            yield
        finally:
            with self._changed:
                self._lookers.subtract(names)

    def events(self, seen: dict[str, Any], timeout: float) -> dict[str, str]:
        """Wait up to ``timeout`` seconds for messages newer than those in ``seen``, and store them there.

        Returns the data of their server-sent events; a message that cannot be shown is logged and skipped.
        """

        def news() -> dict[str, Any]:
            newest = {name: self.by_name[name].newest for name in seen}
            return {name: one for name, one in newest.items() if one is not None and one is not seen[name]}

        with self._changed:
            self._changed.wait_for(news, timeout)
            found = news()
        seen.update(found)
        texts = {}
        for name, message in found.items():
            try:
                texts[name] = event_of(name, message)
            except ValueError as error:  # noqa: PERF203 (the others can be shown)
                topic = self.by_name[name].topic
                self._node.get_logger().warning(f'{topic}: cannot be shown: {error}', throttle_duration_sec=5.0)
        return texts


def event_of(name: str, message: Any) -> str:
    """Return the data of a server-sent event: a picture as a base64 JPEG, a time or a status as JSON."""
    if name in PICTURES:
        image = picture_of(name, message)
        height, width = image.shape[:2]
        scale = min(_LONGEST_SIDE / max(height, width), 1)
        small = resize_image(image, (round(scale * height), round(scale * width)))
        return base64.b64encode(encode_jpeg(small).tobytes()).decode()
    if name != 'diagnostics':
        return json.dumps(message.data)
    values = {pair.key: pair.value for pair in message.values}
    about = {'node': message.hardware_id, 'level': message.level[0], 'message': message.message, 'values': values}
    return json.dumps(about)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _STALL_SECONDS
    protocol_version = 'HTTP/1.1'

    def do_GET(self) -> None:
        """Answer with the page or the stream."""
        address = urlsplit(self.path)
        if not self.server.answers_to(self.headers.get('Host', '')):
            # DNS rebinding: another site whose name was made to resolve to this machine must not read the camera.
            self.send_error(HTTPStatus.FORBIDDEN, 'open the page at the address that view printed')
        elif address.path == '/':
            self._page()
        elif address.path == '/events':
            shown = parse_qs(address.query).get('show', [''])[0].split(',')
            with suppress(ConnectionError, TimeoutError):
                self._stream([name for name in PICTURES if name in shown])
            self.close_connection = True
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _begin(self, kind: str, **headers: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header('Content-Type', f'{kind}; charset=utf-8')
        self.send_header('Cache-Control', 'no-store')
        for name, value in headers.items():
            self.send_header(name.replace('_', '-'), value)
        self.end_headers()

    def _page(self) -> None:
        page = Path(__file__).with_name('view.html').read_bytes()
        self._begin('text/html', Content_Security_Policy=_POLICY, Content_Length=str(len(page)))
        self.wfile.write(page)

    def _stream(self, pictures: list[str]) -> None:
        feeds = self.server.feeds
        self._begin('text/event-stream', Connection='close')
        seen: dict[str, Any] = dict.fromkeys((*_ALWAYS, *pictures))
        with feeds.looking(list(seen)):
            while not self.server.ended.is_set():
                texts = feeds.events(seen, _HEARTBEAT_SECONDS)
                lines = [f'event: {name}\ndata: {text}\n\n' for name, text in texts.items()]
                self.wfile.write(''.join(lines or [':\n\n']).encode())

    def log_message(self, *_: Any) -> None:
        """Keep requests out of the node's log."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, feeds: Feeds, host: str, port: int) -> None:
        self.feeds = feeds
        self.ended = threading.Event()
        self._loopback = host == 'localhost' or (bool(host) and ipaddress.ip_address(host).is_loopback)
        super().__init__((host, port), _Handler)

    def answers_to(self, host: str) -> bool:
        """Return whether a request's Host header names this machine; accept any if other machines may connect."""
        name = urlsplit(f'//{host}').hostname
        return not self._loopback or name in ('localhost', '127.0.0.1', self.server_address[0])


@contextmanager
def page_server(feeds: Feeds, host: str, port: int) -> Iterator[str]:
    """Serve the page while the context lives and yield its address; raises UserError if the port cannot be opened."""
    try:
        server = _Server(feeds, host, port)
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f'cannot listen on {host}:{port}: {error}; choose another with --host and --port') from None
    thread = threading.Thread(target=server.serve_forever, name='page', daemon=True)
    thread.start()
    try:
        name = 'localhost' if host in ('127.0.0.1', '0.0.0.0') else host
        yield f'http://{name}:{server.server_port}/'
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def run(arguments: argparse.Namespace, ros_arguments: Sequence[str]) -> int:
    """Run the program ``view`` and return its exit status."""
    with ros_node('view', ros_arguments) as (node, stop):
        feeds = Feeds(node, arguments.detector)
        with page_server(feeds, arguments.host, arguments.port) as page, spinning(node):
            node.get_logger().info(f'results of {feeds.detector}: {page}')
            # Without a display, a text browser would take over the terminal.
            if arguments.open and (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
                webbrowser.open(page)
            stop.wait()
    return 0
