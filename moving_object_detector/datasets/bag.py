"""An image topic of a rosbag (ROS 2 with MCAP or SQLite, ROS 1) as a source of frames, without ROS."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.datasets.frames import DEFAULT_FPS, SECOND, Frame, FrameSource, frame_stamp
from moving_object_detector.datasets.messages import decode_compressed, decode_image

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

BAG_SUFFIXES = frozenset({'.bag', '.db3', '.mcap'})
RAW_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'

_REPAIR = {
    '.bag': 'repair it with: rosbag reindex FILE',
    '.mcap': 'repair it with: mcap recover FILE --output REPAIRED',
    '.db3': 'repair it with: ros2 bag reindex FOLDER',
}


def _storage_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in {'.db3', '.mcap'})


def bag_files(path: Path) -> list[Path]:
    """Return the files in which a bag's messages are; ``path`` is a rosbag2 folder or a single file."""
    return _storage_files(path) if path.is_dir() else [path]


def is_bag_folder(path: Path) -> bool:
    """Tell whether ``path`` is a rosbag2 folder, also one whose recorder died before metadata.yaml."""
    return path.is_dir() and ((path / 'metadata.yaml').exists() or bool(_storage_files(path)))


def _unreadable(path: Path, error: Exception) -> UserError:
    files = bag_files(path)
    remedy = _REPAIR.get(files[0].suffix if files else '', 'record it again')
    reason = str(error) or type(error).__name__
    return UserError(f'{path}: this bag cannot be read, it is damaged or cut short ({reason}); {remedy}')


@contextmanager
def _reader(path: Path) -> Iterator[AnyReader]:
    paths = [path]
    if path.is_dir() and not (path / 'metadata.yaml').exists():
        paths = _storage_files(path)
    try:
        # Bags that ROS 2 Humble wrote with SQLite carry no message definitions.
        reader = AnyReader(paths, default_typestore=get_typestore(Stores.ROS2_HUMBLE))
        reader.open()
    except Exception as error:  # a damaged file makes the parser fail in any way
        raise _unreadable(path, error) from error
    try:
        yield reader
    finally:
        reader.close()


def _messages(path: Path, wanted: Callable[[Connection], bool]) -> Generator[tuple[Any, int], None, None]:
    """Yield the messages of the connections that are wanted, and when the bag received them, nanoseconds."""
    with _reader(path) as reader:
        # Of no connections the reader would give all.
        connections = [connection for connection in reader.connections if wanted(connection)]
        messages = reader.messages(connections=connections) if connections else iter(())
        while True:
            try:
                found = next(messages, None)
                if found is None:
                    return
                connection, received, raw = found
                message: Any = reader.deserialize(raw, connection.msgtype)
            except Exception as error:  # as at opening
                raise _unreadable(path, error) from error
            yield message, received


def read_numbers(path: Path, topic: str) -> list[float]:
    """Return all that was said on a topic of std_msgs/Float64; nothing where there is no such topic.

    Raises:
        UserError: The bag cannot be read.

    """
    kind = 'std_msgs/msg/Float64'
    return [float(message.data) for message, _ in _messages(path, lambda c: c.topic == topic and c.msgtype == kind)]


class BagTopic:
    """The messages of one image topic, raw or compressed, not decoded."""

    def __init__(self, path: Path, *, topic: str | None = None, besides: Iterable[str] = ()) -> None:
        """Open the bag and find the topic.

        Args:
            path: rosbag2 folder, ``.mcap``, ``.db3`` or ROS 1 ``.bag``.
            topic: The image topic, needed when the bag has several.
            besides: Image topics that are not meant when ``topic`` is not given.

        Raises:
            UserError: The bag cannot be read, or the topic is not there.

        """
        self.path = path
        with _reader(path) as reader:
            self.topic = self._choose(reader.connections, topic, set(map(_full_name, besides)))
            self.message_count = sum(
                connection.msgcount for connection in reader.connections if self._is_meant(connection)
            )

    def _choose(self, connections: list[Connection], topic: str | None, besides: set[str]) -> str:
        images = sorted({c.topic for c in connections if c.msgtype in {RAW_TYPE, COMPRESSED_TYPE}})
        listed = ', '.join(images) or 'none'
        if topic is None:
            meant = [image for image in images if image not in besides]
            if len(meant) == 1:
                return meant[0]
            if meant:
                raise UserError(f'{self.path}: several image topics, name one of them: {", ".join(meant)}')
            others = ', '.join(sorted({f'{c.topic} ({c.msgtype})' for c in connections})) or 'nothing'
            raise UserError(f'{self.path}: no image topic in this bag; it holds {others}')
        full = _full_name(topic)
        if full in images:
            return full
        other = next((c.msgtype for c in connections if c.topic == full), None)
        what = f'{full} is {other}, not an image' if other else f'no topic {full}'
        raise UserError(f'{self.path}: {what}; image topics: {listed}')

    def _is_meant(self, connection: Connection) -> bool:
        return connection.topic == self.topic and connection.msgtype in {RAW_TYPE, COMPRESSED_TYPE}

    def messages(self) -> Generator[tuple[Any, int], None, None]:
        """Yield each message, in the order in which the bag received them, with its stamp in nanoseconds.

        The stamp is the header's; where that is 0, the time at which the bag received the message.

        Raises:
            UserError: The bag is damaged; the messages before that place have been yielded.

        """
        for message, received in _messages(self.path, self._is_meant):
            stamp = message.header.stamp.sec * SECOND + message.header.stamp.nanosec
            yield message, stamp or received


def _full_name(topic: str) -> str:
    return topic if topic.startswith('/') else f'/{topic}'


class BagSource(FrameSource):
    """Images of one topic, raw or compressed, stamped with their headers.

    A header without a stamp (0) takes the time at which the bag received the message.
    """

    def __init__(self, path: Path, *, topic: str | None = None, fps: float | None = None) -> None:
        """Open the bag, find the topic and decode its first image.

        Args:
            path: rosbag2 folder, ``.mcap``, ``.db3`` or ROS 1 ``.bag``.
            topic: The image topic, needed when the bag has several.
            fps: Stamp the frames evenly at this rate from the first stamp on.

        Raises:
            UserError: The bag cannot be read, or the topic is not there or holds no image.

        """
        self.name = str(path)
        self._topic = BagTopic(path, topic=topic)
        self.topic = self._topic.topic
        self.frame_count = self._topic.message_count
        self._forced_fps = fps
        with closing(self._topic.messages()) as messages:
            first = next(messages, None)
            if first is None:
                raise UserError(f'{self.name}: no message on {self.topic}')
            stamps = [first[1], *(stamp for _, stamp in islice(messages, 8))]
        self._first_stamp = stamps[0]
        steps = [after - before for before, after in pairwise(stamps) if after > before]
        # Stamps are whole nanoseconds: 1/24 s in them is not 24 frames a second to the last digit.
        self.fps = fps or (round(SECOND / median(steps), 6) if steps else DEFAULT_FPS)
        height, width = self._frame((0, first)).image.shape[:2]
        self.size = (height, width)

    def _frame(self, numbered: tuple[int, tuple[Any, int]]) -> Frame:
        index, (message, stamp) = numbered
        try:
            image = decode_image(message) if hasattr(message, 'encoding') else decode_compressed(message)
        except ImageError as error:
            raise ImageError(f'{self.name}: {self.topic}, message {index}: {error}') from error
        if self._forced_fps is not None:
            stamp = self._first_stamp + frame_stamp(index, self._forced_fps)
        return Frame(image, stamp, f'{index:06d}')

    def __iter__(self) -> Iterator[Frame]:
        """Return the topic's images in the order in which the bag received them."""
        # Not a generator, which ends with the first error: after an image that does not decode comes the next one.
        return map(self._frame, enumerate(self._topic.messages()))
