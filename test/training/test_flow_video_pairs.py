import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.collection import find_clips
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.networks.pwcnet import warp
from moving_object_detector.synthetic.random_scene import pooled_texture
from moving_object_detector.training.flow_cache import CacheOptions, cached_clips
from moving_object_detector.training.flow_pairs import VideoFlowPairs

SIZE = (96, 160)


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    """Two clips, of four and of six frames, that pan 5 pixels to the right and 2 down a frame."""
    root = tmp_path_factory.mktemp('footage')
    for number, frames in enumerate((4, 6)):
        (root / f'clip{number}').mkdir()
        for k in range(frames):
            top, left = 100 - 2 * k, 300 - 5 * k
            image = pooled_texture(1 + number)[top : top + SIZE[0], left : left + SIZE[1]]
            cv2.imwrite(str(root / f'clip{number}' / f'{k}.png'), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    found = find_clips([str(root)], 'train')
    return cached_clips(found, root / 'cache', DisFlow(SIZE), 'dis', CacheOptions(SIZE, 2), progress=False)


@pytest.mark.parametrize('least_crop', [1.0, 0.5])
def test_the_flow_fits_the_frames(clips, least_crop):
    """In all crops, flips and gaps the second frame warped by the teacher's flow is the first one."""
    pairs = VideoFlowPairs(clips, 3, (64, 128), least_crop)
    aligned, still, motions = [], [], []
    for index in range(24):
        first, second, flow, seen = pairs[index]
        assert not seen.any()
        assert first.shape == second.shape == (3, 64, 128)
        assert first.dtype == second.dtype == torch.uint8
        assert flow.shape == (2, 64, 128)
        inner = (..., slice(14, -14), slice(24, -24))
        moved = warp(second[None].float(), flow[None])[0]
        aligned.append(float((moved - first)[inner].abs().mean()))
        still.append(float((second.float() - first.float())[inner].abs().mean()))
        motions.append(flow[inner].median(2).values.median(1).values.numpy())
    print(f'mean difference {np.mean(aligned):.1f} levels, {np.mean(still):.1f} without flow')
    assert np.mean(aligned) < 0.4 * np.mean(still)
    # Both gaps, both directions, both flips.
    assert len({tuple(np.sign(np.rint(motion))) for motion in motions}) == 4
    assert np.abs(motions)[:, 0].max() > 1.5 * np.abs(motions)[:, 0].min()


def test_a_pair_depends_on_seed_and_number_alone(clips):
    pairs = VideoFlowPairs(clips, 3, (64, 128))
    in_order = [pairs[index] for index in range(4)]
    again = VideoFlowPairs(clips, 3, (64, 128))
    for index in (2, 0, 3, 1):
        assert all(torch.equal(a, b) for a, b in zip(again[index], in_order[index], strict=True))
    other = VideoFlowPairs(clips, 4, (64, 128))[0]
    assert not torch.equal(other.first, in_order[0].first)


def test_every_frame_is_drawn_as_often(clips):
    pairs = VideoFlowPairs(clips, 3, (64, 128))
    drawn = [pairs._draw(np.random.default_rng(k)) for k in range(2000)]
    counts = np.unique([f'{clip.name} {frame}' for clip, frame, _ in drawn], return_counts=True)[1]
    assert len(counts) == 10
    assert counts.min() > 150


def test_clips_without_pairs():
    with pytest.raises(UserError, match='no clip has two frames'):
        VideoFlowPairs([], 1, (64, 128))
