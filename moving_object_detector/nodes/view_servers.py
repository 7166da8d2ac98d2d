"""What viewers connect to: a page with a stream of events, and the Foxglove app's WebSocket."""

from __future__ import annotations

import base64
import ipaddress
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from moving_object_detector.common.errors import UserError
from moving_object_detector.nodes.view import PICTURES, Feed, Feeds, Shot

_ALWAYS: Final = ('diagnostics', 'pipeline_latency_ms')
"""Sent to every page; pictures on demand."""
_HEARTBEAT_SECONDS: Final = 1.0
"""Between looks whether the browser is still there."""
_STALL_SECONDS: Final = 20.0
"""After which a browser that takes nothing is given up."""
_BACKLOG: Final = 64
"""Messages that may wait for the app, about a second's: the rest is lost, so that what is shown is never old."""
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'"
)
"""The page may load nothing but its own stream: no script from anywhere."""


def event_of(shot: Shot, detector: str) -> str:
    """Return the text of a server-sent event: a picture as base64 of its JPEG, values as JSON."""
    message = shot.message
    if shot.feed.name in PICTURES:
        return base64.b64encode(shot.jpeg).decode()
    if shot.feed.name != 'diagnostics':
        return json.dumps(message.data)
    (status, *_) = (status for status in message.status if status.hardware_id == detector)
    level = status.level if isinstance(status.level, int) else status.level[0]
    values = {pair.key: pair.value for pair in status.values}
    return json.dumps({'node': detector, 'level': level, 'message': status.message, 'values': values})


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _STALL_SECONDS
    protocol_version = 'HTTP/1.1'

    def do_GET(self) -> None:
        """Answer with the page or the stream."""
        address = urlsplit(self.path)
        if not self.server.answers_to(self.headers.get('Host', '')):
            # A page from elsewhere whose name was made to point here must not read the camera.
            self.send_error(HTTPStatus.FORBIDDEN, 'open the page by the address that view printed')
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
        seen: dict[str, Shot | None] = dict.fromkeys((*_ALWAYS, *pictures))
        with feeds.looking(seen):
            while not self.server.ended.is_set():
                shots = feeds.fresh(seen, _HEARTBEAT_SECONDS)
                for shot in shots:
                    with feeds.complaining(shot):
                        text = event_of(shot, feeds.detector)
                        self.wfile.write(f'event: {shot.feed.name}\ndata: {text}\n\n'.encode())
                if not shots:
                    self.wfile.write(b':\n\n')

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
        """Tell whether a request's Host header names this machine; any does where others may look."""
        name = urlsplit(f'//{host}').hostname
        return not self._loopback or name in ('localhost', '127.0.0.1', self.server_address[0])


def _spoken(host: str) -> str:
    return 'localhost' if host in ('127.0.0.1', '0.0.0.0') else host


def _listening_failed(host: str, port: int, error: Exception, option: str) -> UserError:
    return UserError(f'cannot listen on {host}:{port}: {error}; choose another with {option}')


@contextmanager
def page_server(feeds: Feeds, host: str, port: int) -> Iterator[str]:
    """Serve the page while the context lives; its address is what the context gives.

    Raises:
        UserError: The address cannot be listened on.

    """
    try:
        server = _Server(feeds, host, port)
    except (OSError, ValueError, OverflowError) as error:
        raise _listening_failed(host, port, error, '--host and --port') from None
    thread = threading.Thread(target=server.serve_forever, name='page', daemon=True)
    thread.start()
    try:
        yield f'http://{_spoken(host)}:{server.server_port}/'
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Looks:
    """Looks at what the Foxglove app subscribes to, until it unsubscribes or closes; the SDK calls it."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._names = {feed.topic: feed.name for feed in feeds.by_name.values()}

    def on_subscribe(self, client: Any, channel: Any) -> None:
        self._feeds.look(self._names[channel.topic])

    def on_unsubscribe(self, client: Any, channel: Any) -> None:
        self._feeds.leave(self._names[channel.topic])


def _channel(feed: Feed, context: Any) -> Any:
    """Return the Foxglove channel of a feed: JPEG for pictures, the ROS message as it is for all else."""
    import foxglove.channels
    from rosbags.typesys import Stores, get_typestore

    if feed.name in PICTURES:
        return foxglove.channels.CompressedImageChannel(feed.topic, context=context)
    kind = f'{feed.kind.__module__.partition(".")[0]}/msg/{feed.kind.__name__}'
    text, _ = get_typestore(Stores.LATEST).generate_msgdef(kind, ros_version=2)
    schema = foxglove.Schema(name=kind, encoding='ros2msg', data=text.encode())
    return foxglove.Channel(feed.topic, message_encoding='cdr', schema=schema, context=context)


def _payload(shot: Shot) -> Any:
    """Return what a channel logs."""
    from foxglove.messages import CompressedImage, Timestamp
    from rclpy.serialization import serialize_message

    if shot.feed.name not in PICTURES:
        return bytes(serialize_message(shot.message))
    header = shot.message.header
    stamp = Timestamp(sec=header.stamp.sec, nsec=header.stamp.nanosec)
    return CompressedImage(timestamp=stamp, frame_id=header.frame_id, format='jpeg', data=shot.jpeg)


@contextmanager
def foxglove_server(feeds: Feeds, host: str, port: int) -> Iterator[str]:
    """Serve the Foxglove app while the context lives; its address is what the context gives.

    Topics have the names that they have in ROS, so that one layout fits this server, foxglove_bridge and recordings.

    Raises:
        ModuleNotFoundError: foxglove-sdk is not installed.
        UserError: The address cannot be listened on.

    """
    import foxglove

    context = foxglove.Context()
    channels = {name: _channel(feed, context) for name, feed in feeds.by_name.items()}
    try:
        server = foxglove.start_server(
            name=feeds.detector,
            host=host,
            port=port,
            context=context,
            server_listener=_Looks(feeds),
            message_backlog_size=_BACKLOG,
        )
    except (RuntimeError, OSError, OverflowError) as error:
        raise _listening_failed(host, port, error, '--foxglove-port; 0 does without') from None
    ended = threading.Event()

    def send() -> None:
        seen: dict[str, Shot | None] = dict.fromkeys(channels)
        while not ended.is_set():
            for shot in feeds.fresh(seen, _HEARTBEAT_SECONDS):
                channel = channels[shot.feed.name]
                if channel.has_sinks():
                    with feeds.complaining(shot):
                        channel.log(_payload(shot))

    thread = threading.Thread(target=send, name='foxglove', daemon=True)
    thread.start()
    try:
        yield f'ws://{_spoken(host)}:{server.port}'
    finally:
        ended.set()
        thread.join()
        server.stop()
