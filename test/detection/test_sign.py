from __future__ import annotations

import torch

from moving_object_detector.detection.sign import resolve_sign


def frame(border: float, inside: float, height: int = 10, width: int = 12) -> torch.Tensor:
    mask = torch.full((1, 1, height, width), border)
    mask[:, :, 2:-2, 2:-2] = inside
    return mask


def test_a_mask_around_the_border_is_turned_inside_out() -> None:
    torch.testing.assert_close(resolve_sign(frame(0.9, 0.2)), frame(0.1, 0.8))


def test_a_mask_inside_stays() -> None:
    assert torch.equal(resolve_sign(frame(0.05, 0.95)), frame(0.05, 0.95))


def test_the_border_counts_from_a_tenth() -> None:
    assert torch.equal(resolve_sign(frame(0.1, 0.5)), frame(0.1, 0.5))
    torch.testing.assert_close(resolve_sign(frame(0.11, 0.5)), frame(0.89, 0.5))


def test_more_than_six_tenths_of_the_border_turn_it() -> None:
    # 10 x 12 has a two-pixel border of 120 - 6 * 8 = 72 pixels, six tenths of which are 43.2.
    border = [(y, x) for y in range(10) for x in range(12) if y < 2 or y >= 8 or x < 2 or x >= 10]
    assert len(border) == 72
    for covered, turned in ((43, False), (44, True)):
        mask = torch.zeros(1, 1, 10, 12)
        for y, x in border[:covered]:
            mask[0, 0, y, x] = 1.0
        assert torch.equal(resolve_sign(mask), 1 - mask if turned else mask)


def test_each_mask_of_a_batch_by_itself() -> None:
    batch = torch.cat((frame(0.9, 0.2), frame(0.0, 0.7)))
    torch.testing.assert_close(resolve_sign(batch), torch.cat((frame(0.1, 0.8), frame(0.0, 0.7))))
