"""What a flow backend is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


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
