"""From an image message to a frame: what is refused, what starts the stream anew, and how both are said."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import ImageError, foreign
from moving_object_detector.detection.continuity import Step
from moving_object_detector.media.messages import decode_compressed
from moving_object_detector.media.pixels import SampleScale, check_size
from moving_object_detector.nodes.messages import read_image

ADVICE = {
    Step.REPEATS: 'is the topic published twice, or does the clock stand still?',
    Step.GOES_BACK: 'does a bag loop, was the clock set, or do two cameras publish here?',
    Step.AFTER_GAP: 'are images lost on the way (frames lost in /diagnostics), or left out by the camera? If it is '
    'that slow, raise the parameter continuity.max_gap',
    Step.NEW_SIZE: 'do two cameras publish here?',
}


def header_stamp(header: Any) -> int:
    """Return a header's stamp in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def message_encoding(message: Any) -> str:
    """Return the encoding of a sensor_msgs/Image, or the format of a CompressedImage, as it may be logged."""
    return foreign(message.encoding if hasattr(message, 'encoding') else message.format)


def decode(message: Any, max_side: int, scale: SampleScale) -> NDArray[np.uint8]:
    """Turn an image message into a frame.

    Args:
        message: sensor_msgs/Image or CompressedImage.
        max_side: Longest side that is accepted, pixels; looked at before any pixel is touched.
        scale: Of the stream, for samples of 16 bits.

    Returns:
        (H, W, 3) uint8 RGB that owns its memory.

    Raises:
        ImageError: It cannot be decoded as its header says, or is too small or too large.

    """
    try:
        if not hasattr(message, 'encoding'):
            return decode_compressed(message, scale, max_side)
        if min(message.height, message.width) > 0:  # else a better reason is given below
            check_size(message.height, message.width, max_side)
        return read_image(message, scale)
    except ImageError:
        raise
    except Exception as error:
        # Of the decoders nothing is known for certain; a message of anybody's making must not look like a fault here.
        raise ImageError(f'undecodable: {type(error).__name__}: {foreign(error)}') from error


def kind_of(error: ImageError) -> str:
    """Return a short name of what is wrong: messages start with it, and differ in numbers after it."""
    return f'invalid {str(error).split(maxsplit=1)[0]}'
