"""Writing a rosbag2 that Humble and everything after it reads, without ROS."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
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

    def write_camera_info(
        self, topic: str, stamp: int, size: tuple[int, int], intrinsics: NDArray[np.float64], frame_id: str
    ) -> None:
        """Append a sensor_msgs/CameraInfo without distortion: size (height, width), K as nine numbers by rows."""
        types = self.typestore.types
        region = types['sensor_msgs/msg/RegionOfInterest'](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
        self._write_message(
            topic, 'sensor_msgs/msg/CameraInfo', stamp, header=self._header(stamp, frame_id), height=size[0],
            width=size[1], distortion_model='plumb_bob', d=np.zeros(5), k=intrinsics, r=np.eye(3).ravel(),
            p=np.hstack((intrinsics.reshape(3, 3), np.zeros((3, 1)))).ravel(), binning_x=0, binning_y=0, roi=region,
        )  # fmt: skip

    def write_transform(
        self, stamp: int, parent: str, child: str, translation: Sequence[float], rotation: Sequence[float]
    ) -> None:
        """Append the pose of ``child`` in ``parent`` (metres; quaternion x, y, z, w) to ``/tf``."""
        types = self.typestore.types
        pose = types['geometry_msgs/msg/Transform'](
            translation=types['geometry_msgs/msg/Vector3'](*translation),
            rotation=types['geometry_msgs/msg/Quaternion'](*rotation),
        )
        stamped = types['geometry_msgs/msg/TransformStamped'](
            header=self._header(stamp, parent), child_frame_id=child, transform=pose
        )
        self._write_message('/tf', 'tf2_msgs/msg/TFMessage', stamp, transforms=[stamped])

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
