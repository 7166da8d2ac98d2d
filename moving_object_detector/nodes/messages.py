"""Images and ROS messages into each other: by cv_bridge where it is right and works here, else by our own table."""

from __future__ import annotations

import importlib.util
from array import array
from functools import cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from moving_object_detector.common.errors import ImageError, foreign
from moving_object_detector.media.messages import decode_image, encode_image
from moving_object_detector.media.pixels import SampleScale

BRIDGED: Final = {
    'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1, 'yuv422': 2, 'yuv422_yuy2': 2,
    'bayer_rggb8': 1, 'bayer_bggr8': 1, 'bayer_gbrg8': 1, 'bayer_grbg8': 1,
}  # fmt: skip
"""Encodings of which cv_bridge makes the same RGB as our table, with the bytes of a pixel."""


_TYPES: Final = get_typestore(Stores.ROS2_HUMBLE)
"""Definitions of messages; an image has been the same in every ROS 2."""


def read_message(kind: str, data: bytes) -> Any:
    """Return what a message in CDR holds, with the fields that ``kind`` has in ROS; arrays are views of ``data``.

    By rosbags, since rclpy says nothing of a message that it cannot deserialise, and takes the next one instead.

    Raises:
        ImageError: It cannot be deserialised.

    """
    try:
        return _TYPES.deserialize_cdr(memoryview(data), kind)
    except SerdeError as error:
        raise ImageError(
            f'message of {len(data)} bytes that does not deserialise ({foreign(error)}); is it published from other '
            f'definitions than those of {kind} here?'
        ) from error


@cache
def bridge() -> Any:
    """Return the distribution's ``cv_bridge.CvBridge``; None where there is none that this NumPy can load.

    Its compiled part, when built for NumPy 1, ends the process under NumPy 2. Its file is looked at instead of tried.
    """
    try:
        compiled = importlib.util.find_spec('cv_bridge.boost.cv_bridge_boost')
        if compiled is None or compiled.origin is None:
            return None
        for_numpy_2 = b'numpy._core' in Path(compiled.origin).read_bytes()
        if int(np.__version__.partition('.')[0]) > 1 and not for_numpy_2:
            return None
        from cv_bridge import CvBridge

        return CvBridge()
    except (ImportError, OSError):
        return None


def _is_plain(message: Image) -> bool:
    """Tell whether an image is whole, without padding and of an encoding that cv_bridge gets right."""
    height, width, channels = message.height, message.width, BRIDGED.get(message.encoding)
    # OpenCV's interpolation of a mosaic and of yuv needs neighbours.
    return (
        channels is not None
        and min(height, width) > 2
        and not width % 2
        and not message.is_bigendian
        and message.step == width * channels
        and len(message.data) == height * message.step
    )


def read_image(message: Image, scale: SampleScale | None = None) -> NDArray[np.uint8]:
    """Turn a sensor_msgs/Image into (H, W, 3) uint8 RGB that owns its memory; ``scale`` is the stream's, for 16 bits.

    Raises:
        ImageError: As :func:`~moving_object_detector.media.messages.decode_image`.

    """
    if bridge() is not None and _is_plain(message):
        return np.asarray(bridge().imgmsg_to_cv2(message, 'rgb8'), np.uint8)
    return decode_image(message, scale)


def _octets(data: NDArray[Any]) -> array[int]:
    # Of anything but an array.array Humble's messages check every single element: seconds for a large image.
    octets = array('B')
    octets.frombytes(data.data)
    return octets


def image_message(pixels: NDArray[Any], encoding: str, header: Header) -> Image:
    """Build a sensor_msgs/Image.

    Args:
        pixels: As :func:`~moving_object_detector.media.messages.encode_image` takes them: RGB
            for both rgb8 and bgr8.
        encoding: rgb8, bgr8, mono8, 32FC1 or 32FC2.
        header: The message's header; not copied.

    Returns:
        The message, with its own copy of the pixels.

    """
    if bridge() is not None:
        in_order = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if encoding == 'bgr8' else pixels
        return bridge().cv2_to_imgmsg(in_order, encoding, header)
    image = encode_image(pixels, encoding)
    message = Image(header=header, height=image.height, width=image.width, encoding=encoding, step=image.step)
    message.data = _octets(image.data)
    return message


def compressed_message(data: NDArray[Any], header: Header) -> CompressedImage:
    """Build a sensor_msgs/CompressedImage from the bytes of a JPEG (flat uint8)."""
    message = CompressedImage(header=header, format='jpeg')
    message.data = _octets(data)
    return message
