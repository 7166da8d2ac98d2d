"""Teacher and student: on rendered clips whose cheap flow is spoilt, masks get better without any label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import generator_path
from moving_object_detector.common.options import with_values
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.datasets.collection import find_clips
from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import DetectorConfig, RigidConfig
from moving_object_detector.evaluation.metrics import jaccard
from moving_object_detector.flow.base import network_image
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.flow.evidence import with_evidence
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.weights import load_network, save_network
from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene
from moving_object_detector.training import run
from moving_object_detector.training.config import TrainConfig
from moving_object_detector.training.flow_cache import CacheOptions, cached_clips
from moving_object_detector.training.losses import mask_loss
from moving_object_detector.training.pairs import CachedOptions, CachedPairs, MixedPairs
from moving_object_detector.training.teacher import Teacher, make_target

pytestmark = pytest.mark.usefixtures('one_thread')
SIZE = (48, 96)
FRAMES = 7


class SpoiltFlow(DisFlow):
    """DIS that sees half of the motion in the right half of the picture, and noise everywhere."""

    def estimate(self, sources, targets, size):
        flow = super().estimate(sources, targets, size)
        flow[..., size[1] // 2 :] *= 0.5
        noise = torch.from_numpy(np.random.default_rng(len(sources)).normal(0, 0.3, flow.shape))
        return flow + noise.to(flow.dtype)


def results_of(clip, **options):
    """Return refined results of the shipped generator on a clip."""
    config = replace(load_config(DetectorConfig(), Path('config/cpu.yaml')), **options)
    detector = build_detector(replace(config, engine='torch', device='cpu', precision='float32'))
    steps = [detector.step(image, 50_000_000 * number, tag=number) for number, image in enumerate(clip)]
    return [one for step in [*steps, detector.flush()] for one in step.results if one.estimate == 'refined']


def test_a_target_is_the_mask_where_the_detector_is_sure(scenes):
    images = [scenes[0].image(time) for time in range(5)]
    for result in results_of(images):
        target, certain = make_target(result, SIZE) / 255
        truth = cv2.resize(scenes[0].mask(int(result.tag)).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_AREA)
        sure = certain > 0.8
        assert sure.mean() > 0.8
        assert np.abs(target - truth)[sure].mean() < 0.03
        # Its outline, where a mask is half of both, counts for less.
        outline = (truth > 0.2) & (truth < 0.8)
        assert certain[outline].mean() < certain.mean() - 0.05


def test_what_was_dropped_or_not_found_teaches_nothing(scenes):
    images = [scenes[0].image(time) for time in range(5)]
    for result in results_of(images, rigid=RigidConfig(min_score=1.0)):
        assert not make_target(result, SIZE)[1].any()
    for result in results_of([images[0]] * 3):
        assert not make_target(result, SIZE).any()


@pytest.mark.parametrize(
    ('parameters', 'named'),
    [
        (None, 'none.yaml'),
        ('engine: torch, flow.backend: raft_small, flow.model: ~/no/such.pth', r'such\.pth'),
        ('engine: torch, window.past: 0, window.future: 0', r'window\.past'),
        ('engine: torch, model: no_such.safetensors', 'no_such'),
    ],
)
def test_a_teacher_that_cannot_be_made_is_named_before_anything_is_computed(tmp_path, parameters, named):
    path = tmp_path / 'none.yaml'
    if parameters is not None:
        path = tmp_path / 'teacher.yaml'
        path.write_text(f'/**: {{ros__parameters: {{{parameters}}}}}')
    with pytest.raises(UserError, match=rf'teacher\.detector .*{named}'):
        Teacher(path, torch.device('cpu'))


def test_the_key_of_a_teacher_is_of_its_weights_and_options_not_of_where_they_are(tmp_path):
    keys = []
    for name, options in (('a', 'threads: 1'), ('b', 'threads: 2'), ('c', 'rigid.min_score: 0.1')):
        weights = tmp_path / f'{name}.safetensors'
        weights.write_bytes(generator_path('small').read_bytes())
        parameters = tmp_path / f'{name}.yaml'
        parameters.write_text(f'/**: {{ros__parameters: {{engine: torch, model: {weights}, {options}}}}}')
        keys.append(Teacher(parameters, torch.device('cpu')).key)
    assert keys[0] == keys[1] != keys[2]


def test_a_clip_that_has_lost_frames_since_is_named(tmp_path):
    (tmp_path / 'clip').mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 128, 3), np.uint8)
        cv2.imwrite(str(tmp_path / 'clip' / f'{number}.png'), pixels)
    (clip,) = find_clips([str(tmp_path / 'clip')], 'train')
    options = CacheOptions((32, 64), 1)
    (kept,) = cached_clips([clip], tmp_path / 'cache', DisFlow((32, 64), 'fast'), 'fast', options)
    (tmp_path / 'clip' / '3.png').unlink()
    (shorter,) = find_clips([str(tmp_path / 'clip')], 'train')
    parameters = tmp_path / 'teacher.yaml'
    parameters.write_text('/**: {ros__parameters: {engine: torch, window.past: 1, window.future: 1}}')
    with pytest.raises(UserError, match='fewer frames'):
        Teacher(parameters, torch.device('cpu')).targets([(shorter, kept)], tmp_path / 'cache')


def test_a_share_of_the_pairs_is_exact():
    taught, exact = [tuple(torch.full((1, 2, 2), value) for value in values) for values in ((1, 2, 3, 0.5), (4, 5, 6))]
    pairs = MixedPairs([taught] * 400, [exact] * 400, 0.25, 3)
    items = [pairs[index] for index in range(400)]
    kinds = [tuple(float(one[0, 0, 0]) for one in item) for item in items]
    assert set(kinds) == {(1, 2, 3, 0.5), (4, 5, 6, 1)}
    assert 70 < kinds.count((4, 5, 6, 1)) < 130
    assert kinds == [tuple(float(one[0, 0, 0]) for one in pairs[index]) for index in range(400)]


def test_the_loss_looks_at_what_is_certain_alone():
    probability = torch.tensor([[[[0.2, 0.9, 0.4]]]])
    mask, certain = torch.tensor([[[[0.0, 1.0, 1.0]]]]), torch.tensor([[[[1.0, 1.0, 0.0]]]])
    by_hand = -(np.log(0.8) + np.log(0.9)) / 2 + 1 - (2 * 0.9 + 1) / (0.2 + 0.9 + 1 + 1)
    logits = probability.logit()
    assert float(mask_loss(logits, mask, certain)) == pytest.approx(by_hand, abs=1e-6)
    assert torch.equal(mask_loss(logits, mask, torch.ones_like(mask)), mask_loss(logits, mask))
    assert float(mask_loss(logits, mask, torch.zeros_like(mask))) == 0


def test_pairs_show_targets_as_they_show_the_image(exact_clip):
    class Marked:
        """The image's first channel as target, of odd frames alone."""

        def __call__(self, frame):
            return np.stack((exact_clip.image(frame)[:, :, 0], np.full((64, 128), 255 * (frame % 2), np.uint8)))

    for k in range(8):
        image, flow, target, certain = CachedPairs([exact_clip], 1, CachedOptions((32, 64)), [Marked()])[k]
        assert torch.allclose(image[:1] + 0.5, target, atol=1e-6)
        assert flow.shape == (2, 32, 64)
        assert torch.allclose(certain, torch.ones(1), atol=1e-6)
        assert certain.max() <= 1
    with pytest.raises(UserError, match=r'teacher\.detector'):
        CachedPairs([exact_clip], 1, CachedOptions((32, 64)), [lambda frame: np.zeros((2, 64, 128), np.uint8)])


@pytest.fixture(scope='module')
def scenes():
    options = SceneOptions(size=(96, 192), objects=(1, 1), object_extent=(0.3, 0.5), textures=4)
    return [clip_scene(seed, options) for seed in (5, 6)]


@pytest.fixture
def miniature(scenes, tmp_path, monkeypatch):
    """Footage, and options of a run on it whose cheap flow is spoilt."""
    for number, scene in enumerate(scenes):
        folder = tmp_path / 'clips' / f'{number}'
        folder.mkdir(parents=True)
        for time in range(FRAMES):
            cv2.imwrite(str(folder / f'{time:05d}.png'), cv2.cvtColor(scene.image(time), cv2.COLOR_RGB2BGR))
    network, about = load_network(generator_path())
    small = tmp_path / 'small.safetensors'
    save_network(network, small, {**about, 'height': str(SIZE[0]), 'width': str(SIZE[1])})

    def spoilt(config, *_):
        return SpoiltFlow((config.height, config.width), config.preset)

    monkeypatch.setattr(run, 'create_flow', spoilt)
    teacher = tmp_path / 'teacher.yaml'
    teacher.write_text(
        f'/**: {{ros__parameters: {{model: {small}, engine: torch, flow.preset: medium, flow.height: 96, '
        'flow.width: 192, window.past: 1, window.future: 1, rigid.min_score: 0.0}}'
    )
    values = {
        'data.root': str(tmp_path / 'clips'), 'data.cache': str(tmp_path / 'cache'), 'data.height': 48,
        'data.width': 96, 'data.largest_gap': 2, 'run.workers': 0, 'network.height': SIZE[0],
        'network.width': SIZE[1], 'flow.preset': 'fast', 'flow.height': 96, 'flow.width': 192,
        'network.flow_input': 'geometric', 'start.model': str(small),
        'teacher.detector': str(teacher), 'teacher.batch': 4, 'teacher.rendered': 0.25,
        'rendered.steps': 0, 'inpainter.steps': 0, 'game.steps': 0, 'run.device': 'cpu',
        'run.threads': 1, 'run.candidates': 2, 'run.checkpoint_every': 2,
    }  # fmt: skip
    return with_values(TrainConfig(), values)


def overlap(scenes, model):
    """Return the mean J of a model's masks of spoilt flow, against the scenes' own masks."""
    network, backend, found = load_network(model)[0], SpoiltFlow((96, 192), 'fast'), []
    for scene in scenes:
        for time in range(FRAMES - 1):
            first, second = (backend.features(scene.image(one)) for one in (time, time + 1))
            with torch.inference_mode():
                there, back = backend.estimate([first, second], [second, first], SIZE).numpy()
                seen = torch.from_numpy(with_evidence(scene.image(time), there, back))[None]
                flow = prepare_flow(seen, 'geometric').flow
                mask = network(network_image(scene.image(time), SIZE)[None], flow)[0, 0].numpy()
            found.append(jaccard(cv2.resize(mask, (192, 96)) > 0.5, scene.mask(time)))
    return float(np.mean(found))


@pytest.mark.slow
def test_the_student_gets_better_and_the_first_of_equals_is_chosen(miniature, scenes, tmp_path):
    config = replace(miniature, teacher=replace(miniature.teacher, steps=60, learning_rate=1e-3, average=0.9))
    outcome = run.run_training(config, tmp_path / 'out', [])
    before = overlap(scenes, tmp_path / 'out' / 'candidates' / 'teacher-000000.safetensors')
    after = overlap(scenes, outcome.model)
    print(f'J of masks of spoilt flow: {before:.3f} before, {after:.3f} after')
    assert after > before + 0.1
    card = outcome.model.with_suffix('.md').read_text()
    assert '| stage teacher | 60 steps of 4 pairs |' in card
    assert '| teacher-000060 |' in card
    assert 'No annotated frame was used.' in card


def test_killed_and_started_again_it_ends_in_the_same_bits(miniature, tmp_path, monkeypatch):
    config = replace(miniature, teacher=replace(miniature.teacher, steps=5))
    whole = run.run_training(config, tmp_path / 'whole', []).model.read_bytes()
    made = {path: path.read_bytes() for path in (tmp_path / 'cache').rglob('*-target.npy')}
    assert made
    for path in made:
        path.unlink()
    from moving_object_detector.training import chunks, loop

    def dies(*_):
        raise KeyboardInterrupt

    kept = chunks.write_array
    written = []

    def one_and_no_more(path: Path, array):
        kept(path, array)
        written.append(path)
        if len(written) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(chunks, 'write_array', one_and_no_more)
    with pytest.raises(KeyboardInterrupt):
        run.run_training(config, tmp_path / 'again', [])
    monkeypatch.setattr(chunks, 'write_array', kept)
    saved = loop.save_checkpoint

    def then_dies(path, state):
        saved(path, state)
        if state.get('step') == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, 'save_checkpoint', then_dies)
    with pytest.raises(KeyboardInterrupt):
        run.run_training(config, tmp_path / 'again', [])
    monkeypatch.setattr(loop, 'save_checkpoint', saved)
    assert run.run_training(config, tmp_path / 'again', []).model.read_bytes() == whole
    assert {path: path.read_bytes() for path in (tmp_path / 'cache').rglob('*-target.npy')} == made
    # A flipped bit in a target is found, and the target made again.
    damaged = next(iter(made))
    damaged.write_bytes(made[damaged][:-40] + bytes([made[damaged][-40] ^ 1]) + made[damaged][-39:])
    flow_cache_forgets(monkeypatch)
    assert run.run_training(config, tmp_path / 'third', []).model.read_bytes() == whole
    assert damaged.read_bytes() == made[damaged]


def flow_cache_forgets(monkeypatch):
    """A new process has read nothing yet."""
    from moving_object_detector.training import chunks

    monkeypatch.setattr(chunks, '_checked', set())
