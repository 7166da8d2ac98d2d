"""Writing a rosbag2 that Humble and everything after it reads, without ROS."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.frames import SECOND
from moving_object_detector.datasets.messages import EncodedImage

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

STORAGES = ('mcap', 'sqlite3')
# Humble's reader takes the quality of service as text; from version 9 on it is a list.
_METADATA_VERSION: Literal[8] = 8


def _clear(path: Path) -> None:
    """Remove an older bag, and nothing else: the folder may hold only what a bag is made of."""
    strangers = [entry.name for entry in path.iterdir() if entry.suffix not in {'.mcap', '.db3', '.yaml'}]
    if strangers:
        raise UserError(f'{path}: not overwritten, it is not a bag (it holds {", ".join(sorted(strangers)[:5])})')
    shutil.rmtree(path)


class BagWriter(AbstractContextManager['BagWriter']):
    """A rosbag2 folder that is complete once the context is left, also by an error or Ctrl-C."""

    def __init__(self, path: str | Path, *, storage: str = 'mcap', overwrite: bool = False) -> None:
        """Create the folder.

        Args:
            path: The folder; missing parents are made.
            storage: One of :data:`STORAGES`.
            overwrite: Replace a bag that is already there.

        Raises:
            UserError: The folder exists, or cannot be made.

        """
        self.path = Path(path)
        self.message_count = 0
        # Definitions of the messages; an image has been the same in every ROS 2.
        self.typestore = get_typestore(Stores.ROS2_HUMBLE)
        self._connections: dict[str, Connection] = {}
        try:
            if self.path.exists():
                if not overwrite or not self.path.is_dir():
                    raise UserError(f'{self.path}: exists already; give another name or --overwrite')
                _clear(self.path)
            plugin = StoragePlugin.MCAP if storage == 'mcap' else StoragePlugin.SQLITE3
            self._writer: Writer | None = Writer(self.path, version=_METADATA_VERSION, storage_plugin=plugin)
            self._writer.open()
        except OSError as error:
            raise UserError(f'{self.path}: cannot be written: {error.strerror}') from error

    def write_raw(self, topic: str, message_type: str, stamp: int, data: bytes) -> None:
        """Append a serialised message.

        Args:
            topic: Full topic name.
            message_type: For example ``sensor_msgs/msg/Image``; known to :attr:`typestore`.
            stamp: The bag's time for the message, in nanoseconds; need not rise.
            data: The message in CDR, as DDS carries it.

        Raises:
            UserError: The disk is full, or the like.

        """
        if self._writer is None:
            raise ValueError('the bag is closed')
        try:
            connection = self._connections.get(topic)
            if connection is None:
                connection = self._writer.add_connection(topic, message_type, typestore=self.typestore)
                self._connections[topic] = connection
            self._writer.write(connection, stamp, data)
        except OSError as error:
            raise UserError(f'{self.path}: cannot be written: {error.strerror}') from error
        self.message_count += 1

    def _header(self, stamp: int, frame_id: str) -> Any:
        types = self.typestore.types
        time = types['builtin_interfaces/msg/Time'](sec=stamp // SECOND, nanosec=stamp % SECOND)
        return types['std_msgs/msg/Header'](stamp=time, frame_id=frame_id)

    def _write_message(self, topic: str, message_type: str, stamp: int, **fields: Any) -> None:
        message = self.typestore.types[message_type](**fields)
        self.write_raw(topic, message_type, stamp, bytes(self.typestore.serialize_cdr(message, message_type)))

    def write_image(self, topic: str, stamp: int, image: EncodedImage, frame_id: str = 'camera') -> None:
        """Append a sensor_msgs/Image whose header and bag time are both ``stamp`` (nanoseconds)."""
        header = self._header(stamp, frame_id)
        self._write_message(topic, 'sensor_msgs/msg/Image', stamp, header=header, is_bigendian=0, **image._asdict())

    def write_compressed(
        self, topic: str, stamp: int, data: Any, frame_id: str = 'camera', *, kind: str = 'jpeg'
    ) -> None:
        """Append a sensor_msgs/CompressedImage with a file (flat uint8) of this kind, stamped as above."""
        header = self._header(stamp, frame_id)
        self._write_message(topic, 'sensor_msgs/msg/CompressedImage', stamp, header=header, format=kind, data=data)

    def close(self) -> None:
        """Write the index and metadata.yaml; a bag without messages is removed. Further calls do nothing."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.close()
        if self.message_count == 0:
            shutil.rmtree(self.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the bag."""
        self.close()
