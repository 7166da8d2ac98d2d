"""How much of a region's flow the inpainter can tell from the rest of the image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from torch import Tensor

from moving_object_detector.common.files import file_hash
from moving_object_detector.evaluation.method import Finding
from moving_object_detector.evaluation.signals import at_size
from moving_object_detector.flow.dis import reduce_flow
from moving_object_detector.flow.egomotion import fit_camera_motion
from moving_object_detector.networks.weights import load_network
from moving_object_detector.training.losses import UNIT_PIXELS, UNIT_SIZE, motion_units, squared

LEAST_MOTION: Final = 0.001 * UNIT_SIZE[1] / UNIT_PIXELS
"""Flow that counts as none, motion units: a thousandth of the width, as for the detector (gate.min_motion)."""
LEAST_SIDE: Final = 0.001
"""Least share of the image inside and outside of a mask for its rate to mean something."""


def information_reduction(flow: Tensor, mask: Tensor, guess: Tensor) -> float:
    """Return gamma, the share of a region's flow that is told from outside of it: a term of equation 7 of the paper.

    1 - sum |chi (u - phi)|^2 / sum |chi u|^2, with the square of LEAST_MOTION added to |u|^2: where nothing
    moves there is nothing to tell. Not below 0, as information is not.

    Args:
        flow: (1, 2, H, W), u, motion units.
        mask: (1, 1, H, W), chi, in [0, 1], not all 0.
        guess: (1, 2, H, W), phi: the inpainter's, from the flow outside of the mask and the image, motion units.

    Returns:
        In [0, 1]: near 0 for a region that moves on its own, near 1 for a part of what surrounds it.

    """
    side = mask.square()
    error, energy = side * squared(flow - guess), side * (squared(flow) + LEAST_MOTION**2)
    return max(1.0 - float(error.sum() / energy.sum()), 0.0)


class Information:
    """The information reduction rate of masks, by an inpainter that the trainer has left.

    An inpainter of the whole flow (``game.target=raw``) also tells what an object shares with a moving camera, so rates
    compare masks of one clip, not clips under cameras of different speed.

    Args:
        path: The inpainter's file.
        every: Only frames whose number is a multiple of it are looked at; one takes about 30 ms of one core
            at 96x192.

    Raises:
        ModelError: The file is missing, damaged or holds no inpainter.

    """

    def __init__(self, path: Path, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f'every is {every}; it takes 1 or more')
        self._network, metadata = load_network(path, 'inpainter')
        self._size = int(metadata['height']), int(metadata['width'])
        self._residual = metadata.get('game.target') == 'residual'
        self._every = every
        self.identity: Mapping[str, Any] = {
            'inpainter': file_hash(path),
            'inpainter_every': every,
        }
        """What decides the rates, but for masks and flow."""

    def of(self, finding: Finding) -> float | None:
        """Return the rate of a finding's mask.

        None where the frame is skipped, its flow is not known, or nearly all or nothing is in the mask.
        """
        if finding.flow is None or finding.index % self._every:
            return None
        inside = at_size(finding.mask, self._size)
        if not LEAST_SIDE <= inside.mean() <= 1 - LEAST_SIDE:
            return None
        small = cv2.resize(finding.image, (self._size[1], self._size[0]), interpolation=cv2.INTER_AREA)
        image = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255.0 - 0.5
        flow = torch.from_numpy(np.nan_to_num(reduce_flow(finding.flow, self._size))).permute(2, 0, 1)[None]
        flow = motion_units(flow - fit_camera_motion(flow) if self._residual else flow)
        mask = torch.from_numpy(inside)[None, None].float()
        with torch.inference_mode():
            guess = self._network(image, flow * (1.0 - mask), mask)
        return information_reduction(flow, mask, guess)
