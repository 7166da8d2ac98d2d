"""What arrives on topics, into a video and a bag; message definitions for the bag from the classes ROS generated."""

from __future__ import annotations

import importlib
import re
import sys
import time
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosbags.typesys import get_types_from_msg
from rosbags.typesys.store import Typestore
from sensor_msgs.msg import Image

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.media.bags import BagWriter
from moving_object_detector.media.frames import SECOND
from moving_object_detector.media.pixels import SampleScale
from moving_object_detector.media.video import VideoWriter
from moving_object_detector.nodes.messages import read_image

# How a Python class names a field's type, against how a .msg file does.
_NAMES = {'boolean': 'bool', 'double': 'float64', 'float': 'float32', 'octet': 'byte'}


@dataclass
class Track:
    """One recorded topic: its full name, how many messages are recorded, and how many at most."""

    topic: str
    limit: int = sys.maxsize
    count: int = 0


class Recorder:
    """Subscriptions of a node that feed a video and a bag.

    Attributes:
        last_arrival: When the last message came, in seconds of :func:`time.monotonic`; ``None``
            before the first.

    """

    def __init__(self, node: Node, qos: QoSProfile) -> None:
        """Prepare; nothing is subscribed to yet.

        Args:
            node: Subscribes, and tells the time for messages without a stamp.
            qos: Quality of service of the subscriptions.

        """
        self._node = node
        self._qos = qos
        self.last_arrival: float | None = None

    def _arrived(self, track: Track) -> bool:
        """Note an arrival; return whether the message is to be recorded."""
        self.last_arrival = time.monotonic()
        if track.count >= track.limit:
            return False
        track.count += 1
        return True

    def subscribe_video(self, topic: str, video: VideoWriter, limit: int | None = None) -> Track:
        """Record an image topic as video, ``limit`` frames at most."""
        track = Track(str(self._node.resolve_topic_name(topic)), limit or sys.maxsize)

        scale = SampleScale()

        def receive(message: Image) -> None:
            try:
                image = read_image(message, scale)
            except ImageError as error:
                self._node.get_logger().error(f'{track.topic}: {error}', throttle_duration_sec=5.0)
                return
            if self._arrived(track):
                video.write(image, message.header.stamp.sec * SECOND + message.header.stamp.nanosec)

        self._node.create_subscription(Image, track.topic, receive, self._qos)
        return track

    def subscribe_bag(self, topic: str, message_type: str, bag: BagWriter, limit: int | None = None) -> Track:
        """Record a topic in a bag, byte for byte, at the time in its header.

        Messages without a header, or with a stamp of 0, are put at the time they came.

        Args:
            topic: Any topic.
            message_type: Such as ``sensor_msgs/msg/Image``.
            bag: Where to.
            limit: How many messages at most.

        Raises:
            UserError: The message type is not installed.

        """
        track = Track(str(self._node.resolve_topic_name(topic)), limit or sys.maxsize)
        register_type(bag.typestore, message_type)
        fields = bag.typestore.fielddefs[message_type][1]
        has_header = bool(fields) and fields[0][1][1] == 'std_msgs/msg/Header'

        def receive(data: bytes) -> None:
            if self._arrived(track):
                stamp = header_stamp(data) if has_header else 0
                bag.write_raw(track.topic, message_type, stamp or self._node.get_clock().now().nanoseconds, data)

        self._node.create_subscription(message_class(message_type), track.topic, receive, self._qos, raw=True)
        return track


def header_stamp(data: bytes) -> int:
    """Return the stamp, in nanoseconds, of a serialised message (CDR) that begins with a header."""
    order: Any = 'little' if data[1] & 1 else 'big'
    seconds = int.from_bytes(data[4:8], order, signed=True)
    return seconds * SECOND + int.from_bytes(data[8:12], order)


def message_class(name: str) -> Any:
    """Return the class of a message type such as ``sensor_msgs/msg/Image``.

    Raises:
        UserError: The name is not a message type, or its package is not installed.

    """
    package, _, short = name.replace('/msg/', '/').partition('/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), short)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f'message type {name} is not installed here; install and source the package {package}'
        ) from error


def _field(kind: str) -> tuple[str, str | None]:
    """Turn a class's field type into a .msg file's; also return the message type it refers to."""
    sequence = re.fullmatch(r'sequence<(.+?)(?:, (\d+))?>', kind)
    array = re.fullmatch(r'(.+)\[(\d+)\]', kind)
    suffix = ''
    if sequence:
        kind, suffix = sequence[1], f'[<={sequence[2]}]' if sequence[2] else '[]'
    elif array:
        kind, suffix = array[1], f'[{array[2]}]'
    text = re.sub(r'^(w?string)<(\d+)>$', r'\1<=\2', kind)
    return _NAMES.get(text, text) + suffix, kind if '/' in kind else None


def register_type(typestore: Typestore, name: str) -> None:
    """Make ``typestore`` know a message type and all types in it.

    Constants and comments are left out: they are no part of the type's hash.

    Args:
        typestore: Where to register.
        name: For example ``vision_msgs/msg/Detection2DArray``.

    Raises:
        UserError: The type is not installed.

    """
    if name in typestore.fielddefs:
        return
    lines = []
    for field, kind in message_class(name).get_fields_and_field_types().items():
        text, inner = _field(kind)
        lines.append(f'{text} {field}')
        if inner is not None:
            package, _, short = inner.partition('/')
            register_type(typestore, f'{package}/msg/{short}')
    typestore.register(get_types_from_msg('\n'.join(lines), name))
