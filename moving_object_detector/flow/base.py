"""What a flow backend is, and the unit of motion of the losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# The released code divides flow by 80 pixels of its 640 x 384 input.
UNIT_SIZE: Final = (384, 640)
UNIT_PIXELS: Final = 80.0


def motion_units(flow: Tensor) -> Tensor:
    """Express flow (B, 2, H, W), pixels, in units of 80 pixels of an image of 384 x 640, whatever its own size."""
    height, width = flow.shape[-2:]
    scale = flow.new_tensor((UNIT_SIZE[1] / width, UNIT_SIZE[0] / height)) / UNIT_PIXELS
    return flow * scale[:, None, None]


class FlowBackend(Protocol):
    """Estimates optical flow between frames that were each prepared once.

    The split into :meth:`features` and :meth:`estimate` lets a streaming caller keep what is
    computed from one frame alone (a grey image, a feature pyramid) and use it in every pair.
    """

    name: str

    def features(self, image: NDArray[np.uint8]) -> Any:
        """Compute what one frame contributes to every pair it is in.

        Args:
            image: (H, W, 3) RGB, any size.

        """

    def estimate(self, sources: Sequence[Any], targets: Sequence[Any], size: tuple[int, int]) -> Tensor:
        """Estimate the flow of each pair.

        Args:
            sources: Features of the frames the flow is defined on.
            targets: Features of the frames it points to, as many.
            size: (height, width) of the result.

        Returns:
            (N, 2, height, width) float32: pixel (x, y) of the source is at (x + u, y + v) of the
            target, in pixels of the result's size.

        """
