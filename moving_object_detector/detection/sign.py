"""The border rule: which side of a mask is the object."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

# The released code's values, kept: they were never tuned on what we score.
BORDER_WIDTH: Final = 2
BORDER_LEVEL: Final = 0.1
BORDER_SHARE: Final = 0.6


def resolve_sign(masks: Tensor) -> Tensor:
    """Complement each mask that covers most of the frame's border.

    The loss is symmetric in the mask and its complement, so its sign is arbitrary; background touches
    the border more than an object does. Applied to each mask before averaging, since two masks of
    opposite sign would cancel.

    Args:
        masks: (B, 1, H, W) in [0, 1].

    Returns:
        (B, 1, H, W); a mask above 0.1 on more than 0.6 of the two-pixel border is replaced by 1 - mask.

    """
    border = torch.ones(masks.shape[-2:], device=masks.device)
    border[BORDER_WIDTH:-BORDER_WIDTH, BORDER_WIDTH:-BORDER_WIDTH] = 0
    # Weighted, not chosen: how many pixels there are to choose a GPU would have to be asked.
    covered = ((masks[:, 0] > BORDER_LEVEL) * border).sum((1, 2)) / border.sum()
    return torch.where((covered > BORDER_SHARE)[:, None, None, None], 1 - masks, masks)
