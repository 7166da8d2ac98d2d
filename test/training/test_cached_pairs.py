from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene
from moving_object_detector.training.pairs import CachedOptions, CachedPairs

SIZE = (64, 128)
OPTIONS = CachedOptions(size=(48, 96))


class MemoryClip:
    """A clip held in memory: images (N, H, W, 3) and what the flow of (frame, gap) is."""

    def __init__(self, name, images, flow, gaps=tuple(gap for gap in range(-5, 6) if gap)):
        self.name = name
        self.frame_count = len(images)
        self.size = images[0].shape[:2]
        self.gaps = gaps
        self._images = images
        self._flow = flow

    def image(self, index):
        return self._images[index]

    def flow(self, index, gap):
        if gap not in self.neighbours(index):
            raise IndexError((index, gap))
        return self._flow(index, gap)

    def neighbours(self, index):
        return tuple(gap for gap in self.gaps if 0 <= index + gap < self.frame_count)


def numbered(name, frames, gaps=tuple(gap for gap in range(-5, 6) if gap), size=(8, 8)):
    """A clip of grey images whose level is the frame's number and whose u is the gap, at no cost."""
    images = [np.full((*size, 3), number, np.uint8) for number in range(frames)]
    return MemoryClip(name, images, lambda _, gap: np.full((2, *size), gap, np.float32), gaps)


PLAIN = CachedOptions(size=(8, 8), least_crop=1.0, flips=False)


@pytest.fixture(scope='module')
def scene_clip():
    """Ten rendered frames with exact flow."""
    scene = clip_scene(5, SceneOptions(size=SIZE, textures=4))
    images = [scene.image(number) for number in range(10)]
    return MemoryClip(
        'scene', images, lambda index, gap: scene.flow(index, index + gap).transpose(2, 0, 1).astype(np.float16)
    )


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_shapes_types_and_ranges(scene_clip):
    pairs = CachedPairs([scene_clip], 1, OPTIONS)
    for k in range(20):
        image, flow, index = pairs[k]
        assert (image.shape, flow.shape, index.shape) == ((3, 48, 96), (2, 48, 96), (3,))
        assert image.dtype == flow.dtype == torch.float32
        assert index.dtype == torch.int64
        assert -0.5001 < image.min() < image.max() < 0.5001
        assert flow.isfinite().all()
        clip, frame, gap = index.tolist()
        assert clip == 0
        assert 0 <= frame + gap <= 9


@pytest.mark.parametrize('gap', [-2, 3])
def test_an_items_flow_leads_from_its_image_to_the_neighbours(scene_clip, gap):
    """A second clip with each frame replaced by its neighbour gives the neighbour in the same view."""
    only = MemoryClip('one gap', scene_clip._images, scene_clip._flow, (gap,))
    shifted = MemoryClip('neighbours', np.roll(scene_clip._images, -gap, 0), scene_clip._flow, (gap,))
    ys, xs = np.mgrid[0:48, 0:96].astype(np.float32)
    right, wrong = [], []
    for k in range(16):
        image, flow, index = CachedPairs([only], 2, OPTIONS)[k]
        neighbour, _, same_index = CachedPairs([shifted], 2, OPTIONS)[k]
        assert torch.equal(index, same_index)
        picture = neighbour.permute(1, 2, 0).numpy() * 255
        for sign, errors in ((1, right), (-1, wrong)):
            x, y = xs + sign * flow[0].numpy(), ys + sign * flow[1].numpy()
            inside = (x > 0) & (x < 95) & (y > 0) & (y < 47)
            difference = np.abs(cv2.remap(picture, x, y, cv2.INTER_LINEAR) - image.permute(1, 2, 0).numpy() * 255)
            errors.append(np.median(difference.mean(2)[inside]))
    assert max(right) < 6
    assert np.mean(wrong) > 4 * np.mean(right)


def test_an_item_without_chance_is_the_caches(scene_clip):
    options = replace(OPTIONS, size=SIZE, least_crop=1.0, flips=False)
    for k in range(5):
        image, flow, (_, frame, gap) = CachedPairs([scene_clip], 3, options)[k]
        frame, gap = int(frame), int(gap)
        assert torch.allclose(image, torch.from_numpy(scene_clip.image(frame)).permute(2, 0, 1) / 255 - 0.5, atol=1e-6)
        assert np.allclose(flow, scene_clip.flow(frame, gap), atol=1e-5)


def test_views_are_mirrored_both_ways_and_the_flow_with_them():
    """A bright upper left quarter that moves by (1, 2) pixels tells from the picture alone how the view is mirrored."""
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8, :8] = 255
    clip = MemoryClip(
        'corner', [picture] * 3, lambda *_: np.stack((np.full((16, 16), 1), np.full((16, 16), 2))).astype(np.float32)
    )
    options = CachedOptions(size=(16, 16), least_crop=1.0)
    kinds = Counter()
    for k in range(200):
        image, flow, _ = CachedPairs([clip], 4, options)[k]
        mirrored, upside_down = bool(image[0, :, 0].max() < 0), bool(image[0, 0, :].max() < 0)
        assert flow[0].unique().tolist() == [-1 if mirrored else 1]
        assert flow[1].unique().tolist() == [-2 if upside_down else 2]
        kinds[mirrored, upside_down] += 1
    assert len(kinds) == 4
    assert min(kinds.values()) > 30


def test_a_pair_is_a_function_of_seed_and_number_alone(scene_clip):
    whole = CachedPairs([scene_clip], 7, OPTIONS)
    later = CachedPairs([scene_clip], 7, OPTIONS)
    assert same(whole[17], later[17])
    assert same(whole[17], whole[17])
    assert not same(whole[17], whole[18])
    assert not same(whole[17], CachedPairs([scene_clip], 8, OPTIONS)[17])
    assert whole[10**12][0].shape == (3, 48, 96)


def test_loading_in_other_processes_gives_the_same_pairs():
    here = CachedPairs([numbered('a', 9), numbered('b', 4)], 7, PLAIN)
    steps = [[2 * step, 2 * step + 1] for step in range(3, 7)]
    for numbers, batch in zip(
        steps, torch.utils.data.DataLoader(here, batch_sampler=steps, num_workers=2), strict=True
    ):
        for place, number in enumerate(numbers):
            assert same([item[place] for item in batch], here[number])


def test_gaps_are_uniform_and_frames_too():
    """Frames 5 to 14 of 20 have all ten neighbours; frame 0 has five."""
    count = 6000
    pairs = CachedPairs([numbered('clip', 20)], 1, PLAIN)
    seen = Counter()
    for k in range(count):
        image, flow, (_, frame, gap) = pairs[k]
        seen[int(frame), int(gap)] += 1
        assert round(float((image[0, 0, 0] + 0.5) * 255)) == int(frame)
        assert float(flow[0, 0, 0]) == int(gap)
    frames = Counter(frame for frame, _ in seen.elements())
    assert set(frames) == set(range(20))
    assert sum((n - count / 20) ** 2 / (count / 20) for n in frames.values()) < 43.8  # chi-square, 19, p = 0.001
    gaps = Counter(gap for frame, gap in seen.elements() if 5 <= frame <= 14)
    assert set(gaps) == {-5, -4, -3, -2, -1, 1, 2, 3, 4, 5}
    expected = sum(gaps.values()) / 10
    assert sum((n - expected) ** 2 / expected for n in gaps.values()) < 27.9  # chi-square, 9, p = 0.001
    ends = Counter(gap for frame, gap in seen.elements() if frame == 0)
    assert set(ends) == {1, 2, 3, 4, 5}
    assert {gap for frame, gap in seen if frame == 18} == {-5, -4, -3, -2, -1, 1}


def test_clips_come_in_proportion_to_their_pairs():
    """Of 3 frames 6 pairs, of 6 frames 30; of one frame none."""
    clips = [numbered('short', 3), numbered('single', 1), numbered('long', 6)]
    count = 3000
    numbers = Counter(int(CachedPairs(clips, 2, PLAIN)[k][2][0]) for k in range(count))
    assert set(numbers) == {0, 2}
    assert abs(numbers[0] - count / 6) < 4 * (count * 5 / 36) ** 0.5


def test_a_second_gap_is_another_one_in_the_same_view(scene_clip):
    options = replace(PLAIN, second_gap=True)
    pairs = CachedPairs([numbered('clip', 12)], 5, options)
    others = Counter()
    for k in range(300):
        _, flow, (_, frame, gap), other = pairs[k]
        assert float(flow[0, 0, 0]) == int(gap)
        second = int(other[0, 0, 0])
        assert second != int(gap)
        assert 0 <= int(frame) + second < 12
        others[second] += 1
    assert set(others) == {-5, -4, -3, -2, -1, 1, 2, 3, 4, 5}
    _, flow, _, other = CachedPairs([numbered('two', 2)], 5, options)[0]
    assert torch.equal(flow, other)
    # Crop and flips are drawn once: a clip whose flow is the same for every gap gives the same flow twice.
    clip = MemoryClip('same', scene_clip._images, lambda index, _: scene_clip.flow(index, 1 if index < 9 else -1))
    for k in range(8):
        _, flow, _, other = CachedPairs([clip], 6, replace(OPTIONS, second_gap=True))[k]
        assert torch.equal(flow, other)


def test_an_item_takes_milliseconds():
    """On one thread, as in a worker process: the share of a batch of 16 must not be felt in a step of a second."""
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (128, 256, 3), np.uint8) for _ in range(6)]
    flow = rng.normal(0, 3, (2, 128, 256)).astype(np.float16)
    pairs = CachedPairs([MemoryClip('clip', images, lambda *_: flow)], 1, CachedOptions(second_gap=True))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    durations = []
    for k in range(60):
        started = time.perf_counter()
        pairs[k]
        durations.append(time.perf_counter() - started)
    torch.set_num_threads(threads)
    print(f'an item takes {1000 * np.median(durations):.1f} ms')
    assert np.median(durations) < 0.02
