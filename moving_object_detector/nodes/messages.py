"""Images into ROS messages, the fast way."""

from __future__ import annotations

from array import array
from typing import Any

from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from moving_object_detector.datasets.messages import encode_image


def _octets(data: NDArray[Any]) -> array[int]:
    # Of anything but an array.array Humble's messages check every single element: seconds for a large image.
    octets = array('B')
    octets.frombytes(data.data)
    return octets


def image_message(pixels: NDArray[Any], encoding: str, header: Header) -> Image:
    """Build a sensor_msgs/Image.

    Args:
        pixels: As :func:`~moving_object_detector.datasets.messages.encode_image` takes them: RGB
            for both rgb8 and bgr8.
        encoding: rgb8, bgr8, mono8, 32FC1 or 32FC2.
        header: The message's header; not copied.

    Returns:
        The message, with its own copy of the pixels.

    """
    image = encode_image(pixels, encoding)
    message = Image(header=header, height=image.height, width=image.width, encoding=encoding, step=image.step)
    message.data = _octets(image.data)
    return message


def compressed_message(data: NDArray[Any], header: Header) -> CompressedImage:
    """Build a sensor_msgs/CompressedImage from the bytes of a JPEG (flat uint8)."""
    message = CompressedImage(header=header, format='jpeg')
    message.data = _octets(data)
    return message
