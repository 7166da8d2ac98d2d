"""Reads image topics of rosbags (ROS 2 with MCAP or SQLite, ROS 1) and writes rosbag2 folders, without ROS."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from itertools import count, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.media.frames import (
    DEFAULT_FPS,
    LATEST,
    SECOND,
    Frame,
    FrameSource,
    SampleScale,
    frame_stamp,
    rate_of,
    stamp_of,
)
from moving_object_detector.media.messages import COMPRESSED_TYPE, RAW_TYPE, TYPES, EncodedImage, decode_message

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

_COMPRESSED = frozenset({'.zst', '.zstd'})
_IMAGES: Final = (RAW_TYPE, COMPRESSED_TYPE)

_REPAIR: Final = {
    '.bag': 'repair it with: rosbag reindex FILE',
    '.mcap': 'repair it with: mcap recover FILE --output REPAIRED',
    '.db3': 'repair it with: ros2 bag reindex FOLDER',
}
"""Remedies for damaged bags, by file suffix."""
_RESULTS: Final = ('/mask', '/probability', '/overlay', '/flow', '/truth')
"""Endings of image topics from ``detect`` and ``make_bag``, which are chosen only by name if there are others."""
_RATE_MESSAGES: Final = 33
"""Number of first messages from which the frame rate is measured."""
_STAMP_MESSAGES: Final = 9
"""Number of first messages after which headers without stamps are taken to have none."""


def _is_bag_file(path: Path) -> bool:
    """Return whether ``path`` has the name of a bag's file, compressed (``.mcap.zstd``) or not."""
    name = path.with_suffix('') if path.suffix.lower() in _COMPRESSED else path
    return name.suffix.lower() in _REPAIR


def bag_files(path: Path) -> list[Path]:
    """Return the files that hold a bag's messages; ``path`` is a rosbag2 folder or a single file."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if _is_bag_file(file) and '.bag' not in file.suffixes)


def is_bag(path: Path) -> bool:
    """Return whether ``path`` has the name of a bag's file, or is a rosbag2 folder.

    A folder without metadata.yaml, as a killed recorder leaves it, is one if it holds nothing but a bag's files.
    """
    if not path.is_dir():
        return _is_bag_file(path)
    files = bag_files(path)
    # A killed recorder leaves SQLite's journals beside the bag.
    others = [
        entry for entry in path.iterdir() if entry not in files and not entry.name.startswith('.')
        and entry.name != 'metadata.yaml' and not entry.name.endswith(('-shm', '-wal', '-journal', '.active'))
    ]  # fmt: skip
    if (path / 'metadata.yaml').exists():
        # Other data sets have a file of this name too.
        return bool(files) or not others
    # Parts of one recording are called NAME_0, NAME_1 and so on; others are bags of their own.
    names = {re.sub(r'(_\d+)?(\.(mcap|db3))(\.\w+)?$', r'\2', file.name) for file in files}
    return len(names) == 1 and not others


def _unreadable(path: Path, error: Exception) -> UserError:
    files = bag_files(path)
    remedy = _REPAIR.get(files[0].suffix if files else '', 'record it again')
    reason = str(error) or type(error).__name__
    return UserError(f'{path}: this bag cannot be read, it is damaged or cut short ({reason}); {remedy}')


@contextmanager
def _reader(path: Path) -> Iterator[AnyReader]:
    paths = [path] if (path / 'metadata.yaml').exists() else bag_files(path)
    for file in paths:
        if file.suffix.lower() in _COMPRESSED:
            raise UserError(f'{file}: give its folder, with metadata.yaml, or decompress it: zstd -d {file.name}')
    try:
        # Bags that ROS 2 Humble wrote with SQLite carry no message definitions.
        reader = AnyReader(paths, default_typestore=TYPES)
        reader.open()
    except Exception as error:  # the parser may raise anything on a damaged file
        raise _unreadable(path, error) from error
    with closing(reader):
        yield reader


def messages_on(path: Path, topic: str, *kinds: str) -> Generator[tuple[Any, int], None, None]:
    """Yield a topic's messages of the types ``kinds``, such as ``tf2_msgs/msg/TFMessage``, and their bag times."""
    with _reader(path) as reader:
        connections = [one for one in reader.connections if one.topic == _full_name(topic) and one.msgtype in kinds]
        try:
            # Without connections, the reader would yield all messages.
            for connection, received, raw in reader.messages(connections=connections) if connections else ():
                yield reader.deserialize(raw, connection.msgtype), received
        except Exception as error:  # as at opening
            raise _unreadable(path, error) from error


class BagTopic:
    """The undecoded messages of one image topic, raw or compressed; ``topic`` is required if the bag has several.

    Without ``topic``, the topics ``besides`` are not considered. Raises UserError if the bag cannot be read or has no
    such topic.
    """

    def __init__(self, path: Path, *, topic: str | None = None, besides: Iterable[str] = ()) -> None:
        self.path = path
        with _reader(path) as reader:
            self.topic = self._choose(reader.connections, topic, set(map(_full_name, besides)))
            topics = [one for one in reader.connections if one.topic == self.topic and one.msgtype in _IMAGES]
            self.frame_count: int | None = sum(one.msgcount for one in topics)

    def _choose(self, connections: list[Connection], topic: str | None, besides: set[str]) -> str:
        images = sorted({c.topic for c in connections if c.msgtype in _IMAGES})
        held = ', '.join(sorted({f'{c.topic} ({c.msgtype})' for c in connections})) or 'nothing'
        if topic is not None:
            if _full_name(topic) not in images:
                raise UserError(f'{self.path}: no image topic {_full_name(topic)}; the bag holds {held}')
            return _full_name(topic)
        meant = [image for image in images if image not in besides]
        if not meant:
            raise UserError(f'{self.path}: no image topic in this bag; it holds {held}')
        if len(meant) > 1:
            meant = [image for image in meant if not image.removesuffix('/compressed').endswith(_RESULTS)] or meant
        if len(meant) > 1:
            named = 'name one of them (--bag-topic; in training data.topic)'
            raise UserError(f'{self.path}: several image topics, {named}: {", ".join(meant)}')
        return meant[0]

    def messages(self) -> Generator[tuple[Any, int], None, None]:
        """Yield each message in bag order with its stamp in nanoseconds.

        The stamp is the header's, or the bag time if the first headers have none. A single header without a stamp gets
        its bag time, shifted as for the previous message. Raises UserError at damage, after the messages before it.
        """
        waiting: list[tuple[Any, int]] = []
        offset: int | None = None
        headers = True
        try:
            for message, received in messages_on(self.path, self.topic, *_IMAGES):
                stamp = stamp_of(message.header)
                # A time before 1970 is no stamp.
                if headers and 0 < stamp <= LATEST:
                    offset = stamp - received
                waiting.append((message, received))
                if offset is None and len(waiting) == _STAMP_MESSAGES:
                    headers, offset = False, 0
                if offset is not None:
                    yield from _timed(waiting, offset)
        except UserError:
            yield from _timed(waiting)
            raise
        yield from _timed(waiting)


def _timed(waiting: list[tuple[Any, int]], offset: int = 0) -> Iterator[tuple[Any, int]]:
    """Yield the waiting messages with their bag times plus ``offset``, limited to the range of a ROS header."""
    while waiting:
        message, received = waiting.pop(0)
        yield message, min(max(received + offset, 1), LATEST)


def _full_name(topic: str) -> str:
    return topic if topic.startswith('/') else f'/{topic}'


class BagSource(BagTopic, FrameSource):
    """The images of one topic, with the stamps of :meth:`BagTopic.messages`; decodes the first. See ``open_source``."""

    def __init__(
        self, path: Path, *, topic: str | None = None, besides: Iterable[str] = (), fps: float | None = None
    ) -> None:
        super().__init__(path, topic=topic, besides=besides)
        self.name = str(path)
        self._forced_fps = fps
        with closing(self.messages()) as messages:
            first = next(messages, None)
            if first is None:
                raise UserError(f'{self.name}: no message on {self.topic}')
            stamps = [first[1]]
            # Damage further on is reported when it is reached.
            with suppress(UserError):
                stamps.extend(stamp for _, stamp in islice(messages, _RATE_MESSAGES - 1))
        self._first_stamp = stamps[0]
        self.fps = fps or rate_of(stamps) or DEFAULT_FPS
        height, width = self._frame(0, first, SampleScale()).image.shape[:2]
        self.size = (height, width)

    def _frame(self, index: int, stamped: tuple[Any, int], scale: SampleScale) -> Frame:
        message, stamp = stamped
        try:
            image = decode_message(message, scale)
        except ImageError as error:
            raise ImageError(f'{self.name}: {self.topic}, message {index}: {error}') from error
        if self._forced_fps is not None:
            stamp = self._first_stamp + frame_stamp(index, self._forced_fps)
        return Frame(image, stamp, f'{index:06d}')

    def __iter__(self) -> Iterator[Frame]:
        """Iterate over the topic's images in bag order."""
        # Not a generator, which would end with the first error: iteration continues after an undecodable image.
        return map(self._frame, count(), self.messages(), repeat(SampleScale()))


class BagWriter(AbstractContextManager['BagWriter']):
    """Writes a rosbag2 folder, which is complete once the context ends, even by an error or Ctrl-C.

    ``storage`` is ``mcap`` or ``sqlite3``. Raises UserError if the folder cannot be made, or exists and is not a bag to
    ``overwrite``.
    """

    def __init__(self, path: str | Path, *, storage: str = 'mcap', overwrite: bool = False) -> None:
        self.path = Path(path)
        self.message_count = 0
        self._older: Path | None = None
        self._connections: dict[str, Connection] = {}
        try:
            if self.path.exists():
                if not overwrite or not self.path.is_dir():
                    raise UserError(f'{self.path}: exists already; give another name or --overwrite')
                # Never delete anything but a bag's files.
                others = sorted(one.name for one in self.path.iterdir() if one.suffix not in {'.mcap', '.db3', '.yaml'})
                if others or (any(self.path.iterdir()) and not is_bag(self.path)):
                    others = others or sorted(one.name for one in self.path.iterdir())
                    raise UserError(f'{self.path}: not overwritten, it is not a bag (it holds {", ".join(others[:5])})')
                # Kept until the new one has messages.
                self._older = self.path.with_name(f'.{self.path.name[:200]}.{secrets.token_hex(8)}.old')
                self.path.rename(self._older)
            # Humble's reader expects the QoS as text; from version 9 on it is a list.
            self._writer = Writer(self.path, version=8, storage_plugin=StoragePlugin[storage.upper()])
            self._writer.open()
        except OSError as error:
            if self._older is not None and not self.path.exists():
                self._older.rename(self.path)
            raise UserError(f'{self.path}: cannot be written: {error.strerror}') from error

    def write_raw(self, topic: str, message_type: str, stamp: int, data: bytes) -> None:
        """Append a CDR message of a type in :data:`TYPES` at bag time ``stamp`` (nanoseconds)."""
        try:
            if topic not in self._connections:
                self._connections[topic] = self._writer.add_connection(topic, message_type, typestore=TYPES)
            self._writer.write(self._connections[topic], stamp, data)
        except OSError as error:
            raise UserError(f'{self.path}: cannot be written: {error.strerror}') from error
        self.message_count += 1

    def _stamped(self, kind: str, stamp: int, frame_id: str, **fields: Any) -> Any:
        types = TYPES.types
        time = types['builtin_interfaces/msg/Time'](sec=stamp // SECOND, nanosec=stamp % SECOND)
        return types[kind](header=types['std_msgs/msg/Header'](stamp=time, frame_id=frame_id), **fields)

    def _write(self, topic: str, stamp: int, message: Any) -> None:
        kind = message.__msgtype__
        self.write_raw(topic, kind, stamp, bytes(TYPES.serialize_cdr(message, kind)))

    def write_image(self, topic: str, stamp: int, image: EncodedImage, frame_id: str = 'camera') -> None:
        """Append a sensor_msgs/Image whose header and bag time are both ``stamp`` (nanoseconds)."""
        self._write(topic, stamp, self._stamped(RAW_TYPE, stamp, frame_id, is_bigendian=0, **image._asdict()))

    def write_compressed(
        self, topic: str, stamp: int, data: Any, frame_id: str = 'camera', *, kind: str = 'jpeg'
    ) -> None:
        """Append a sensor_msgs/CompressedImage; ``data`` is a file (flat uint8) of format ``kind``."""
        self._write(topic, stamp, self._stamped(COMPRESSED_TYPE, stamp, frame_id, format=kind, data=data))

    def write_camera_info(
        self, topic: str, stamp: int, size: tuple[int, int], intrinsics: NDArray[np.float64], frame_id: str
    ) -> None:
        """Append a sensor_msgs/CameraInfo without distortion; size (height, width), K as nine numbers, row-major."""
        region = TYPES.types['sensor_msgs/msg/RegionOfInterest'](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        message = self._stamped(
            'sensor_msgs/msg/CameraInfo', stamp, frame_id, height=size[0], width=size[1],
            distortion_model='plumb_bob', d=np.zeros(5), k=intrinsics, r=np.eye(3).ravel(),
            p=np.hstack((intrinsics.reshape(3, 3), np.zeros((3, 1)))).ravel(), binning_x=0, binning_y=0, roi=region,
        )  # fmt: skip
        self._write(topic, stamp, message)

    def write_transform(
        self, stamp: int, parent: str, child: str, translation: Sequence[float], rotation: Sequence[float]
    ) -> None:
        """Append the pose of ``child`` in ``parent`` (metres; quaternion x, y, z, w) to ``/tf``."""
        types = TYPES.types
        pose = types['geometry_msgs/msg/Transform'](
            translation=types['geometry_msgs/msg/Vector3'](*translation),
            rotation=types['geometry_msgs/msg/Quaternion'](*rotation),
        )
        kind = 'geometry_msgs/msg/TransformStamped'
        stamped = self._stamped(kind, stamp, parent, child_frame_id=child, transform=pose)
        self._write('/tf', stamp, types['tf2_msgs/msg/TFMessage'](transforms=[stamped]))

    def __exit__(self, *_: object) -> None:
        """Write the index and metadata.yaml; a bag without messages is removed, and an older one put back."""
        self._writer.close()
        if self.message_count == 0:
            shutil.rmtree(self.path)
            if self._older is not None:
                self._older.rename(self.path)
        elif self._older is not None:
            shutil.rmtree(self._older)
