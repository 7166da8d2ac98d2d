"""Any number of rows through a network that was built for one number of them."""

from __future__ import annotations

import torch
from torch import Tensor

from moving_object_detector.engines.base import Runner


class FixedBatch:
    """Splits longer batches and fills up shorter ones with copies of the last row.

    Args:
        run: The network, for exactly ``batch`` rows.
        batch: Its rows.
        small: What runs up to half as many rows, for which a full batch would be waste; None: ``run`` as well.

    """

    def __init__(self, run: Runner, batch: int, small: Runner | None = None) -> None:
        self._run = run
        self._batch = batch
        self._small = small

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the network's outputs for all rows."""
        parts = [
            self._part(*(tensor[start : start + self._batch] for tensor in inputs))
            for start in range(0, inputs[0].shape[0], self._batch)
        ]
        return parts[0] if len(parts) == 1 else tuple(torch.cat(rows) for rows in zip(*parts, strict=True))

    def _part(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        rows = inputs[0].shape[0]
        if self._small is not None and 2 * rows <= self._batch:
            return self._small(*inputs)
        missing = self._batch - rows
        if missing:
            inputs = tuple(torch.cat((tensor, tensor[-1:].expand(missing, *tensor.shape[1:]))) for tensor in inputs)
        return tuple(output[:rows] for output in self._run(*inputs))
