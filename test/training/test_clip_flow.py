from __future__ import annotations

import weakref
from dataclasses import replace

import cv2
import numpy as np
import pytest

from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.media.frames import Frame
from moving_object_detector.training import flow_cache
from moving_object_detector.training.chunks import HALF_MAX, to_half
from moving_object_detector.training.flow_cache import CacheOptions, clip_flows

SIZE = (16, 32)
GAPS = (-2, -1, 1, 2)
PERIOD = 40_000_000


def frames(count, size=(32, 64)):
    """A textured sheet that moves by a pixel a frame."""
    rng = np.random.default_rng(3)
    sheet = cv2.resize(rng.integers(0, 256, (12, 30, 3), np.uint8), (size[1] + 100, size[0]))
    return [Frame(sheet[:, k : k + size[1]].copy(), k * PERIOD, f'{k}.png') for k in range(count)]


class Watched(DisFlow):
    """DIS that counts what it is asked for."""

    def __init__(self):
        super().__init__((32, 64), 'ultrafast')
        self.prepared = 0
        self.largest_batch = 0
        self.most_alive = 0
        self._alive = weakref.WeakValueDictionary()

    def features(self, image):
        found = super().features(image)
        self.prepared += 1
        self._alive[self.prepared] = found
        self.most_alive = max(self.most_alive, len(self._alive))
        return found

    def estimate(self, sources, targets, size):
        self.largest_batch = max(self.largest_batch, len(sources))
        return super().estimate(sources, targets, size)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(flow_cache, 'CHUNK', 2)


def collect(clip, **changes):
    settings = {'backend': DisFlow((32, 64), 'ultrafast'), 'size': SIZE, 'batch': 16, 'done': frozenset()} | changes
    streams, backend, done = settings.pop('streams', []), settings.pop('backend'), set(settings.pop('done'))
    options = CacheOptions(largest_gap=2, **settings)
    numbers, arrays = zip(*clip_flows('clip', clip, backend, options, streams, done), strict=True)
    images, flows = zip(*arrays, strict=True)
    assert list(numbers) == sorted(set(range(-(-len(clip) // 2))) - set(done))
    return np.concatenate(images), np.concatenate(flows)


def directly(clip, backend, size, gaps):
    """The same by the definition, every pair on its own."""
    flows = np.zeros((len(clip), len(gaps), 2, *size), np.float32)
    for index, source in enumerate(clip):
        for column, gap in enumerate(gaps):
            if 0 <= index + gap < len(clip):
                pair = [backend.features(source.image)], [backend.features(clip[index + gap].image)]
                flows[index, column] = backend.estimate(*pair, size)[0].numpy()
    return flows


@pytest.mark.parametrize('batch', [1, 3, 4, 9, 100])
@pytest.mark.parametrize('count', [2, 3, 4, 5, 11])
def test_every_flow_is_the_backends(count, batch):
    clip = frames(count)
    images, flows = collect(clip, batch=batch)
    expected = directly(clip, DisFlow((32, 64), 'ultrafast'), SIZE, GAPS)
    assert np.array_equal(flows, expected.astype(np.float16))
    assert abs(float(expected[0, 2, 0].mean()) + 0.5) < 0.2  # a pixel to the left, at half the size
    for image, frame in zip(images, clip, strict=True):
        assert np.array_equal(image, cv2.resize(frame.image, (32, 16), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize('batch', [4, 9])
@pytest.mark.parametrize('done', [{0}, {5}, {1, 2}, {0, 2, 4}, {3, 4, 5}])
def test_going_on_later_gives_the_rest(done, batch):
    clip = frames(11)
    images, flows = collect(clip, batch=batch)
    rest = collect(clip, batch=batch, done=done)
    missing = np.array([index // 2 not in done for index in range(11)])
    assert np.array_equal(rest[0], images[missing])
    assert np.array_equal(rest[1], flows[missing])


def test_what_is_done_is_not_prepared_again():
    backend = Watched()
    collect(frames(40), backend=backend, done=set(range(20)) - {7})
    # The frames of the chunk, their neighbours, and the last two, which are not known to be the last.
    assert backend.prepared == 2 + 2 * 2 + 2


@pytest.mark.parametrize('batch', [3, 10])
def test_frames_are_prepared_once_and_memory_is_bounded(batch):
    backend = Watched()
    collect(frames(40), backend=backend, batch=batch)
    assert backend.prepared == 40
    assert backend.largest_batch <= batch
    # Two frames on either side of those of a chunk.
    assert backend.most_alive <= 2 + 4


def test_frames_grow_to_a_larger_size():
    images, flows = collect(frames(3), size=(64, 128))
    assert images.shape == (3, 64, 128, 3)
    assert abs(float(flows[0, 2, 0].mean()) + 2) < 0.5


def at(frame, milliseconds):
    return replace(frame, stamp=milliseconds * 1_000_000)


@pytest.mark.parametrize('batch', [4, 100])
def test_pairs_are_made_by_the_detectors_rule(batch):
    """Across a gap, a clock that goes back and another size there is no pair; a repetition pairs with nothing."""
    times = [0, 40, 80, 2000, 2040, 2040, 2080, 100, 140, 180]
    clip = [at(frame, time) for frame, time in zip(frames(10), times, strict=True)]
    clip[9] = replace(clip[9], image=clip[9].image[:, :48])
    streams = []
    _, flows = collect(clip, streams=streams, batch=batch)
    assert streams == [0, 0, 0, 1, 1, -1, 1, 2, 2, 3]
    pairs = {(index, index + gap) for index in range(10) for k, gap in enumerate(GAPS) if flows[index, k].any()}
    expected = {(0, 1), (0, 2), (1, 2), (3, 4), (4, 6), (7, 8)}
    assert pairs == expected | {(b, a) for a, b in expected}


def test_that_most_frames_start_anew_is_said(caplog):
    clip = [at(frame, 1500 * k) for k, frame in enumerate(frames(6))]
    _, flows = collect(clip)
    assert not flows.any()
    assert '5 of 6 frames start the stream anew' in caplog.text


def test_no_frame_and_one():
    assert list(clip_flows('clip', [], Watched(), CacheOptions(SIZE, 2), [], set())) == []
    images, flows = collect(frames(1))
    assert images.shape == (1, *SIZE, 3)
    assert not flows.any()


def test_half_precision(caplog):
    exact = np.array([0.5, -3.0009765625, 1000.0], np.float32)
    assert to_half(exact, 'clip').astype(np.float32) == pytest.approx(exact, rel=2**-11)
    assert to_half(np.array([7e4, -1e30], np.float32), 'clip').tolist() == [HALF_MAX, -HALF_MAX]
    assert not caplog.records
    wrong = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    assert to_half(wrong, 'clip').tolist() == [0, HALF_MAX, -HALF_MAX, 1]
    assert 'clip: 3 values of its flow are not finite' in caplog.text
