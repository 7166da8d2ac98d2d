"""The parameters of the node ``detect``: the detector's options and its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from moving_object_detector.common.options import option
from moving_object_detector.detection.config import DetectorConfig, LoadConfig
from moving_object_detector.media.pixels import LARGEST_SIDE, SMALLEST_SIDE


@dataclass(frozen=True)
class InputConfig:
    """How images come in."""

    timeout: float = option(
        3.0, 'Seconds without an image after which the node says why and finishes what waits.', low=0.1, high=3600.0
    )
    reliability: str = option(
        'auto',
        'auto: reliable where all publishers of the images offer it, else best effort, followed as they change.',
        choices=('auto', 'reliable', 'best_effort'),
    )
    queue: int = option(30, 'Images that may wait; the oldest is dropped and counted.', low=1, high=1000)
    max_side: int = option(
        LARGEST_SIDE, 'Longest side of an image that is accepted, pixels.', low=SMALLEST_SIDE, high=65536
    )
    black: int = option(0, 'Level of 16-bit images that is shown as black; see white.', low=0, high=65535)
    white: int = option(
        0,
        'Level of 16-bit images that is shown as white; not above black: both by the range of the first image.',
        low=0,
        high=65535,
    )


@dataclass(frozen=True)
class NodeConfig(DetectorConfig):
    """All parameters of the node."""

    transport: str = option(
        'auto',
        'raw: sensor_msgs/Image on `image`; compressed: CompressedImage on `image`/compressed; auto: what is '
        'published, raw first.',
        choices=('auto', 'raw', 'compressed'),
    )
    estimate: str = option(
        'refined',
        'refined: the whole window, late by window.future x window.stride frames; zero_lag: at once, from earlier '
        'frames only.',
        choices=('refined', 'zero_lag'),
        runtime=True,
    )
    load: LoadConfig = field(default_factory=LoadConfig)
    autostart: bool = option(True, 'Configure and activate at the start.')
    input: InputConfig = field(default_factory=InputConfig)
