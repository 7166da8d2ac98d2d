"""Images and ROS messages into each other."""

from __future__ import annotations

from array import array
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from moving_object_detector.common.errors import ImageError, foreign
from moving_object_detector.media.messages import encode_image

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


def _octets(data: NDArray[Any]) -> array[int]:
    # Of anything but an array.array Humble's messages check every single element: seconds for a large image.
    octets = array('B')
    octets.frombytes(data.data)
    return octets


def image_message(pixels: NDArray[Any], encoding: str, header: Header) -> Image:
    """Build a sensor_msgs/Image with its own copy of pixels, given as ``encode_image`` takes them (RGB for bgr8)."""
    image = encode_image(pixels, encoding)
    message = Image(header=header, height=image.height, width=image.width, encoding=encoding, step=image.step)
    message.data = _octets(image.data)
    return message


def compressed_message(data: NDArray[np.uint8], header: Header) -> CompressedImage:
    """Build a sensor_msgs/CompressedImage from the bytes of a JPEG (flat uint8)."""
    message = CompressedImage(header=header, format='jpeg')
    message.data = _octets(data)
    return message
