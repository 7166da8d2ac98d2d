from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.synthetic.random_scene import SceneOptions
from moving_object_detector.synthetic.scene import Layer, Scene, translation
from moving_object_detector.training.chunks import CacheError
from moving_object_detector.training.rendered import KeptPairs, RenderedOptions, RenderedPairs, keep_pairs, spoil

OPTIONS = RenderedOptions(size=(32, 64), scene=SceneOptions(size=(64, 128), textures=4))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_shapes_types_and_ranges():
    for image, flow, mask in (RenderedPairs(1, OPTIONS)[k] for k in range(12)):
        assert (image.shape, flow.shape, mask.shape) == ((3, 32, 64), (2, 32, 64), (1, 32, 64))
        assert image.dtype == flow.dtype == mask.dtype == torch.float32
        assert -0.5 <= image.min() <= image.max() <= 0.5
        assert 0 <= mask.min() <= mask.max() <= 1
        assert flow.isfinite().all()


def test_a_pair_is_a_function_of_seed_and_number_alone():
    whole = RenderedPairs(7, OPTIONS)
    later = RenderedPairs(7, OPTIONS)
    assert same(whole[17], later[17])
    assert same(whole[17], whole[17])
    assert not same(whole[17], whole[18])
    assert not same(whole[17], RenderedPairs(8, OPTIONS)[17])


def test_loading_in_another_process_gives_the_same_pairs():
    here = RenderedPairs(7, OPTIONS)
    loader = torch.utils.data.DataLoader(here, batch_sampler=[[3, 4], [5, 6]], num_workers=1)
    for numbers, batch in zip(([3, 4], [5, 6]), loader, strict=True):
        for place, number in enumerate(numbers):
            assert same([item[place] for item in batch], here[number])


def test_shares_of_empty_scenes_and_blank_images():
    empty = RenderedPairs(1, replace(OPTIONS, empty_share=1.0, image_dropout=0.0))
    full = RenderedPairs(1, replace(OPTIONS, empty_share=0.0, image_dropout=1.0))
    assert not any(empty[k][2].any() for k in range(8))
    assert all(empty[k][0].std() > 0.01 for k in range(8))
    assert sum(bool(full[k][2].any()) for k in range(8)) > 4  # an object may be out of view
    assert not any(full[k][0].any() for k in range(8))


def test_flights_are_drawn_in_their_share_and_a_share_of_them_is_still():
    flights = replace(OPTIONS, flights=1.0, image_dropout=0.0, still_flights=0.0)
    moving, still = RenderedPairs(3, flights), RenderedPairs(3, replace(flights, still_flights=1.0))
    assert not any(still[k][2].any() for k in range(3))
    assert any(moving[k][2].any() for k in range(4))  # a mover may be hidden
    assert same(moving[2], RenderedPairs(3, flights)[2])
    sheets, half = RenderedPairs(3, OPTIONS), RenderedPairs(3, replace(OPTIONS, flights=0.5))
    both = [same([half[k][0]], [RenderedPairs(3, replace(OPTIONS, flights=1.0))[k][0]]) for k in range(6)]
    assert 0 < sum(both) < 6
    assert sheets[0][0].shape == half[0][0].shape


@pytest.fixture
def known_scene(monkeypatch):
    """A scene that is darker on the left, shifts by (3, -2) pixels a frame, and has its object on the left."""
    size = (64, 128)
    rng = np.random.default_rng(3)
    noise = cv2.resize(rng.normal(0, 25, (60, 80, 1)), (480, 360), interpolation=cv2.INTER_CUBIC)[:, :, None]
    ramp = np.linspace(60, 200, 480)[None, :, None]
    texture = np.clip(ramp + noise + np.zeros(3), 0, 255).astype(np.uint8)
    ground = Layer(texture, None, lambda time: translation(3 * time - 200, -2 * time - 80), moves=False)
    solid = np.full((20, 20), 255, np.uint8)
    spot = Layer(texture[:20, :20], solid, lambda _: translation(12, 30), moves=True)
    scene = Scene((ground, spot), size)
    for maker in ('random_scene', 'clip_scene'):
        monkeypatch.setattr(f'moving_object_detector.training.rendered.{maker}', lambda *_: scene)
    return scene


def test_mirrored_pairs_are_mirrored_as_a_whole(known_scene):
    """Image, mask and flow say together whether a pair is mirrored; v, which is not, says how far it is apart."""
    options = replace(OPTIONS, empty_share=0.0, image_dropout=0.0, largest_gap=1)
    pairs = RenderedPairs(1, options)
    kinds = set()
    for k in range(24):
        image, flow, mask = pairs[k]
        mirrored = bool(image[:, :, :24].mean() > image[:, :, 40:].mean())
        columns = torch.arange(64).float()
        assert (float((mask[0] * columns).sum() / mask.sum()) > 32) == mirrored
        ground = flow[:, 4:12, 20:44].flatten(1).median(1).values  # above the object, away from the sides
        gap = -float(ground[1])  # -2 pixels of the scene a frame are -1 of the pair
        assert abs(gap) == pytest.approx(1, abs=0.1)
        expected = 1.5 * gap * (-1 if mirrored else 1)
        assert float(ground[0]) == pytest.approx(expected, abs=0.15)
        kinds.add((mirrored, gap > 0))
    assert len(kinds) == 4


def test_gaps_are_spread_over_their_range(known_scene):
    options = replace(OPTIONS, largest_gap=3)
    found = []
    for k in range(40):
        v = float(RenderedPairs(2, options)[k][1][1, 4:12, 20:44].median())
        found.append(round(-v))
    assert set(found) == {-3, -2, -1, 1, 2, 3}


def test_mask_and_image_are_the_scenes(known_scene):
    options = replace(OPTIONS, empty_share=0.0, image_dropout=0.0)
    expected = np.zeros((32, 64))
    expected[15:25, 6:16] = 1
    for k in range(6):
        image, _, mask = RenderedPairs(3, options)[k]
        mirrored = bool(image[:, :, :24].mean() > image[:, :, 40:].mean())
        assert np.array_equal(mask[0].numpy(), expected[:, ::-1] if mirrored else expected)


def test_spoiling_is_mild_and_random():
    image = np.full((64, 96, 3), 128, np.uint8)
    image[:, 48:] = 60
    results = [spoil(image, np.random.default_rng(seed)) for seed in range(10)]
    for result in results:
        assert result.dtype == np.uint8
        assert result.shape == image.shape
        assert np.abs(result.astype(float) - image).mean() < 12
        assert result[:, :40].mean() - result[:, 56:].mean() > 55
    assert len({result.tobytes() for result in results}) == 10
    assert (image[:, :48] == 128).all()
    assert np.array_equal(results[4], spoil(image, np.random.default_rng(4)))


def test_the_flow_is_of_the_estimator_that_is_asked_for():
    options = replace(OPTIONS, image_dropout=0.0)
    usual, coarse = RenderedPairs(1, options), RenderedPairs(1, options, partial(DisFlow, (32, 64), 'ultrafast'))
    for k in range(3):
        assert torch.equal(usual[k][0], coarse[k][0])
        assert torch.equal(usual[k][2], coarse[k][2])
    assert any(not torch.equal(usual[k][1], coarse[k][1]) for k in range(3))


def test_pairs_that_were_used_can_be_sent_to_another_process():
    pairs = RenderedPairs(4, OPTIONS)
    item = pairs[2]
    assert same(pickle.loads(pickle.dumps(pairs))[2], item)


def test_pairs_with_evidence_show_the_same_flow_and_followed_scenes_are_others():
    plain, more = RenderedPairs(3, OPTIONS), RenderedPairs(3, replace(OPTIONS, flow_input='geometric'))
    for k in range(3):
        assert more[k][1].shape == (7, *OPTIONS.size)
        assert torch.equal(plain[k][0], more[k][0])
        assert torch.equal(plain[k][1], more[k][1][:2])
    followed = RenderedPairs(3, replace(OPTIONS, followed=1.0))
    assert not torch.equal(plain[0][0], followed[0][0])
    assert followed[0][2].any()


def test_both_sides_are_of_a_neighbour_before_and_one_about_as_long_after(known_scene, tmp_path):
    options = replace(OPTIONS, flow_input='both_sides', empty_share=0.0, one_side=0.0, largest_gap=2)
    pairs = RenderedPairs(3, options)
    ratios = []
    for k in range(6):
        flow = pairs[k][1]
        assert flow.shape == (14, *OPTIONS.size)
        # The ground of the scene moves evenly, by 2 pixels a frame or by 1.
        first, second = (flow[side : side + 2, 4:12, 20:44].flatten(1).median(1).values for side in (0, 7))
        assert float(first[1].abs()) > 0.8
        ratios.append(float(-second[1] / first[1]))
    # The time to the second is from 0.4 to 1.6 of that to the first, here mostly another.
    assert all(0.3 < ratio < 1.7 for ratio in ratios)
    assert max(ratios) > 1.05 * min(ratios)
    kept = KeptPairs(keep(tmp_path, 32, pairs), 32, 5, OPTIONS.size, options)
    for k in range(6):
        flow = kept[k][1]
        first, second = (flow[side : side + 2].flatten(1).median(1).values for side in (0, 7))
        assert float(second @ first) < 0
    alone = RenderedPairs(3, replace(options, one_side=1.0))[1][1]
    assert torch.equal(alone[7:9], -alone[:2])
    assert torch.equal(alone[9:], alone[2:7])


def keep(folder, count=40, pairs=None, workers=0):
    return keep_pairs(pairs or RenderedPairs(7, OPTIONS), count, folder, 'dis', workers)


def test_kept_pairs_are_cut_and_mirrored_as_a_whole(known_scene, tmp_path):
    """However a pair is cut, the ground moves by the same share of the object's width; mirrored, the other way."""
    options = replace(OPTIONS, empty_share=0.0, largest_gap=1)
    folder = keep(tmp_path, 32, RenderedPairs(1, options))
    pairs = KeptPairs(folder, 32, 5, OPTIONS.size, replace(OPTIONS, image_dropout=0.0))
    widths, ways = set(), set()
    for k in range(32):
        image, flow, mask = pairs[k]
        assert (image.shape, flow.shape, mask.shape) == ((3, 32, 64), (2, 32, 64), (1, 32, 64))
        assert -0.5 <= image.min() <= image.max() <= 0.5
        columns = torch.nonzero(mask[0].max(0).values > 0.5)[:, 0]
        if not len(columns) or columns[0] == 0 or columns[-1] == 63:
            continue  # cut through
        width = len(columns)
        mirrored = bool(image[:, :, :24].mean() > image[:, :, 40:].mean())
        ground = flow[:, mask[0] < 0.01].median(1).values
        # 20 pixels wide, ground at (3, -2) pixels a frame, either way in time.
        assert float(ground[1].abs()) == pytest.approx(width * 2 / 20, rel=0.25)
        assert float(ground[0] / ground[1]) == pytest.approx(1.5 if mirrored else -1.5, abs=0.25)
        widths.add(width)
        ways.add(mirrored)
    assert len(widths) > 3
    assert ways == {False, True}


def test_kept_pairs_are_the_rendered_ones_and_the_same_in_any_process(tmp_path):
    pairs = RenderedPairs(7, OPTIONS)
    folder = keep(tmp_path, pairs=pairs, workers=1)
    blanked = replace(OPTIONS, image_dropout=0.5)
    kept = KeptPairs(folder, 40, 3, OPTIONS.size, blanked)
    assert same(kept[5], KeptPairs(keep(tmp_path / 'other'), 40, 3, OPTIONS.size, blanked)[5])
    assert not same(kept[5], kept[6])
    assert 4 < sum(not kept[k][0].any() for k in range(20)) < 16
    raw = pairs.pair(33)
    stored = [np.load(folder / f'00001-{kind}.npy')[1] for kind in ('images', 'flow', 'masks')]
    assert np.array_equal(stored[0], raw.image)
    assert np.abs(stored[1] - raw.flow).max() < 1e-2
    assert np.abs(stored[2] / 255 - raw.mask).max() < 1e-2


def test_what_is_missing_or_damaged_of_kept_pairs_is_rendered_again_and_nothing_else(tmp_path):
    folder = keep(tmp_path)
    files = {path.name: path.read_bytes() for path in folder.glob('*.npy')}
    kept, damaged = folder / '00000-flow.npy', folder / '00001-images.npy'
    when = kept.stat().st_mtime_ns
    damaged.write_bytes(files[damaged.name][:-40] + b'x' + files[damaged.name][-39:])
    kept_pairs = KeptPairs(folder, 64, 1, OPTIONS.size, OPTIONS)
    with pytest.raises(CacheError):
        [kept_pairs[k] for k in range(40)]
    assert keep(tmp_path) == folder
    assert {path.name: path.read_bytes() for path in folder.glob('*.npy')} == files
    assert kept.stat().st_mtime_ns == when
    more = keep(tmp_path, count=65)
    assert more == folder
    assert len(list(folder.glob('*-masks.npy'))) == 3
    assert keep(tmp_path, pairs=RenderedPairs(8, OPTIONS)) != folder
