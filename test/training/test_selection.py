from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from moving_object_detector.training.selection import Judge, Judgement, spread_frames

SIZE = (32, 64)


class BoxClip:
    """A box of 12 x 16 pixels that moves by 3 pixels a frame over a still background, told to the gap's flow alone.

    The box of the flow to gap g begins at column 20 + 8 for g = 1 and at column 20 for g = -1: half of it is in both.
    """

    frame_count = 5
    annotations = ()

    def image(self, index):
        return np.full((*SIZE, 3), 100, np.uint8)

    def flow(self, index, gap):
        flow = np.zeros((2, *SIZE), np.float32)
        left = 28 if gap > 0 else 20
        flow[0, 10:22, left : left + 16] = 3.0 * gap
        return flow

    def neighbours(self, index):
        return tuple(gap for gap in (-1, 1) if 0 <= index + gap < self.frame_count)


class StillClip(BoxClip):
    def flow(self, index, gap):
        return np.zeros((2, *SIZE), np.float32)


class Stub(nn.Module):
    """A generator that gives what a function of image and flow gives."""

    def __init__(self, function):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.function = function

    def forward(self, image, flow):
        return self.function(image, flow).float()


def judged(function, clip=None, frames=((0, 2),)):
    return Judge([clip or BoxClip()], frames, SIZE, 'residual').judge(Stub(function))


def where_it_moves(image, flow):
    return flow.norm(dim=1, keepdim=True) > 0.5


def one_place(image, flow):
    mask = torch.zeros_like(flow[:, :1])
    mask[:, :, 4:12, 8:24] = 1
    return mask


def test_the_same_mask_from_every_gap_agrees_fully():
    assert judged(one_place) == Judgement(agreement=1.0, empty=0.0)


def test_empty_masks_agree_on_nothing():
    assert judged(lambda image, flow: torch.zeros_like(flow[:, :1])) == Judgement(0.0, 1.0)


def test_a_full_mask_is_taken_for_an_empty_one():
    assert judged(lambda image, flow: torch.ones_like(flow[:, :1])) == Judgement(0.0, 1.0)


def test_overlap_by_hand():
    # Two boxes 16 wide share 8 columns of 24.
    found = judged(where_it_moves)
    assert found.agreement == pytest.approx(1 / 3)
    assert found.empty == 0


def test_where_nothing_moves_masks_are_empty():
    assert judged(one_place, StillClip()) == Judgement(0.0, 1.0)


def test_frames_are_spread_over_clips_and_within_them():
    class Long(BoxClip):
        frame_count = 101

    assert spread_frames([Long(), Long()], 6) == [(clip, frame) for clip in (0, 1) for frame in (25, 50, 75)]

    class Short(BoxClip):
        frame_count = 2

    # Of the shortest of clips there is something to judge too, and no more frames than there are.
    assert spread_frames([Short()], 1) == [(0, 0)]
    assert spread_frames([Short()], 60) == [(0, 0), (0, 1)]
    assert len(spread_frames([BoxClip()] * 100, 60)) == 100


def test_a_picture_of_masks_shows_images_with_them():
    judge = Judge([BoxClip()], [(0, frame) for frame in range(1, 4)], SIZE, 'residual')
    picture = judge.draw(Stub(one_place))
    gap = 4
    assert picture.shape == (SIZE[0] + 2 * gap, 3 * (SIZE[1] + gap) + gap, 3)
    assert picture.dtype == np.uint8
    for column in range(3):
        image = picture[gap:, gap + column * (SIZE[1] + gap) :]
        assert (image[2, 30] == 100).all()
        assert (image[8, 16] != 100).any()
