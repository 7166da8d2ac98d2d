"""An image topic of a rosbag (ROS 2 with MCAP or SQLite, ROS 1) as a source of frames, without ROS."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from moving_object_detector.datasets.frames import DEFAULT_FPS, SECOND, Frame, FrameSource, frame_stamp
from moving_object_detector.datasets.messages import decode_compressed, decode_image
from moving_object_detector.errors import ImageError, UserError

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
        self._path = path
        self._forced_fps = fps
        with self._reader() as reader:
            self.topic = self._choose(reader.connections, topic)
            connections = self._connections(reader)
            self.frame_count = sum(connection.msgcount for connection in connections)
        with closing(self._messages()) as messages:
            stamps = [stamp for _, stamp in islice(messages, 9)]
        if not stamps:
            raise UserError(f'{self.name}: no message on {self.topic}')
        steps = [after - before for before, after in pairwise(stamps) if after > before]
        self.fps = fps or (SECOND / median(steps) if steps else DEFAULT_FPS)
        with closing(iter(self)) as frames:
            height, width = next(frames).image.shape[:2]
        self.size = (height, width)

    @contextmanager
    def _reader(self) -> Iterator[AnyReader]:
        paths = [self._path]
        if self._path.is_dir() and not (self._path / 'metadata.yaml').exists():
            paths = _storage_files(self._path)
        try:
            # Bags that ROS 2 Humble wrote with SQLite carry no message definitions.
            reader = AnyReader(paths, default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            reader.open()
        except Exception as error:  # a damaged file makes the parser fail in any way
            raise self._unreadable(error) from error
        try:
            yield reader
        finally:
            reader.close()

    def _unreadable(self, error: Exception) -> UserError:
        files = bag_files(self._path)
        remedy = _REPAIR.get(files[0].suffix if files else '', 'record it again')
        reason = str(error) or type(error).__name__
        return UserError(f'{self.name}: this bag cannot be read, it is damaged or cut short ({reason}); {remedy}')

    def _choose(self, connections: list[Connection], topic: str | None) -> str:
        images = sorted({c.topic for c in connections if c.msgtype in {RAW_TYPE, COMPRESSED_TYPE}})
        listed = ', '.join(images) or 'none'
        if topic is None:
            if len(images) == 1:
                return images[0]
            if images:
                raise UserError(f'{self.name}: several image topics, name one of them: {listed}')
            others = ', '.join(sorted({f'{c.topic} ({c.msgtype})' for c in connections})) or 'nothing'
            raise UserError(f'{self.name}: no image topic in this bag; it holds {others}')
        full = topic if topic.startswith('/') else f'/{topic}'
        if full in images:
            return full
        other = next((c.msgtype for c in connections if c.topic == full), None)
        what = f'{full} is {other}, not an image' if other else f'no topic {full}'
        raise UserError(f'{self.name}: {what}; image topics: {listed}')

    def _connections(self, reader: AnyReader) -> list[Connection]:
        return [c for c in reader.connections if c.topic == self.topic and c.msgtype in {RAW_TYPE, COMPRESSED_TYPE}]

    def _messages(self) -> Generator[tuple[Any, int], None, None]:
        """Yield each message with its stamp in nanoseconds."""
        with self._reader() as reader:
            messages = reader.messages(connections=self._connections(reader))
            while True:
                try:
                    found = next(messages, None)
                    if found is None:
                        return
                    connection, received, raw = found
                    message: Any = reader.deserialize(raw, connection.msgtype)
                except Exception as error:  # as at opening
                    raise self._unreadable(error) from error
                stamp = message.header.stamp.sec * SECOND + message.header.stamp.nanosec
                yield message, stamp or received

    def __iter__(self) -> Generator[Frame, None, None]:
        """Yield the topic's images in the order in which the bag received them."""
        first = 0
        for index, (message, stamp) in enumerate(self._messages()):
            try:
                image = decode_image(message) if hasattr(message, 'encoding') else decode_compressed(message)
            except ImageError as error:
                raise ImageError(f'{self.name}: {self.topic}, message {index}: {error}') from error
            if self._forced_fps is not None:
                first = stamp if index == 0 else first
                yield Frame(image, first + frame_stamp(index, self._forced_fps), f'{index:06d}')
            else:
                yield Frame(image, stamp, f'{index:06d}')
