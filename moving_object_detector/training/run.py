"""A run of ``train`` from its options to the model file and its card."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import nn
from torch.utils.data import Dataset

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import default_inpainter, default_model, file_hash, write_atomically
from moving_object_detector.common.options import options_of, value_of
from moving_object_detector.datasets.collection import find_clips, roots_of
from moving_object_detector.datasets.layouts import ClipFiles
from moving_object_detector.detection.build import choose_flow, create_flow, flow_precision
from moving_object_detector.detection.config import FlowConfig
from moving_object_detector.engines.cache import EngineCache
from moving_object_detector.engines.create import create_engine
from moving_object_detector.media.codecs import encode_png
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.networks.weights import FLOW_CHANNELS, FlowInput, load_network, save_network, takes_evidence
from moving_object_detector.synthetic.random_scene import SceneOptions
from moving_object_detector.training.cards import as_text, identity, write_card, write_inpainter_card
from moving_object_detector.training.chunks import repaired
from moving_object_detector.training.config import DataConfig, TrainConfig
from moving_object_detector.training.flow_cache import CachedClip, CacheOptions, cached_clips
from moving_object_detector.training.game import Game
from moving_object_detector.training.loop import candidate_names, fit
from moving_object_detector.training.pairs import CachedOptions, CachedPairs, MixedPairs
from moving_object_detector.training.rendered import KeptPairs, RenderedOptions, RenderedPairs, keep_pairs
from moving_object_detector.training.selection import InputForm, Judge, Judgement, choose, spread_frames
from moving_object_detector.training.setup import Setup, session
from moving_object_detector.training.stages import InpainterStage, MaskStage, Stage
from moving_object_detector.training.teacher import Lesson, Targets, Voter, taught

# Undoes the softmax's divisor, which would make supervised learning ten times slower.
SUPERVISED_GAIN: Final = 10.0
JUDGED_FRAMES: Final = 60
# By the engine of a flow network over footage; the cache hands over more, which it takes in such pieces.
PAIRS_AT_ONCE: Final = 4


@dataclass(frozen=True)
class Outcome:
    """What a run has left."""

    model: Path
    """The model file, the inpainter's where nothing else is trained."""
    told: tuple[str, ...] = ()
    """Lines for the user: what was reached, and the next command."""


@dataclass(frozen=True)
class Footage:
    """Clips with the robot's flow, and those of them with a teacher's masks."""

    clips: Sequence[CachedClip]
    taught: Sequence[CachedClip] = ()
    targets: Sequence[Targets] = ()
    """Of the clips that are taught."""


def flow_fingerprint(config: FlowConfig) -> str:
    """Return a text that differs between any two backends, settings or weights that give different flow."""
    parts = [config.backend, f'{config.height}x{config.width}']
    if config.backend == 'dis':
        return ' '.join([*parts, config.preset])
    weights = Path(config.model).expanduser()
    return ' '.join([*parts, str(config.iterations), file_hash(weights) if weights.is_file() else ''])


def clips_of(data: DataConfig) -> list[ClipFiles]:
    """Return the clips of the footage that the options name."""
    return find_clips(roots_of(data.root), data.split, data.topic or None)


def cache_folder(data: DataConfig, out: Path) -> Path:
    """Return where flow of footage is kept."""
    return Path(data.cache).expanduser() if data.cache else out / 'flow_cache'


def clips_with_flow(
    data: DataConfig, flow: FlowConfig, out: Path, setup: Setup, largest_gap: int = 0
) -> list[CachedClip]:
    """Find footage and compute its flow, or what is missing of it."""
    flow, engine = choose_flow(flow), None
    if flow.backend != 'dis':
        # The detector's engine, several times as fast as eager PyTorch.
        precision = flow_precision(flow, 'auto', 'auto', setup.device)
        engine = create_engine('auto', setup.device, precision=precision, cache=EngineCache())
    return cached_clips(
        clips_of(data),
        cache_folder(data, out),
        create_flow(flow, setup.device, engine, PAIRS_AT_ONCE),
        flow_fingerprint(flow) + (f' {engine.name} {engine.precision}' if engine else ''),
        CacheOptions((data.height, data.width), largest_gap or data.largest_gap),
        progress=setup.group.leads,
    )


def open_footage(config: TrainConfig, out: Path, setup: Setup) -> Footage | None:
    """Return the footage of a run with its flow, and what the teacher makes of it; None where there is none."""
    if not config.data.root:
        return None
    clips, stage = clips_with_flow(config.data, config.flow, out, setup), config.teacher
    if not stage.steps:
        return Footage(clips)
    teacher = student = _voter(generator_file(stage.model), setup)
    if config.start.model:  # random weights would have nothing to say
        student = _voter(generator_file(config.start.model), setup)
        student = replace(student, form=replace(student.form, size=(config.network.height, config.network.width)))
    seen = {clip.name: clip for clip in clips_with_flow(config.data, stage.flow, out, setup, stage.largest_gap)}
    # A clip of which one flow has no pair is in one of the lists alone.
    learnt = [clip for clip in clips if clip.name in seen]
    lessons = [Lesson(seen[clip.name], clip, teacher, student) for clip in learnt]
    return Footage(clips, learnt, taught(lessons, cache_folder(config.data, out), progress=setup.group.leads))


def _voter(path: Path, setup: Setup) -> Voter:
    network, about = load_network(path)
    size = int(about['height']), int(about['width'])
    return Voter(network.to(setup.device), InputForm(size, cast('FlowInput', about['flow_input'])))


def generator_file(name: str) -> Path:
    """Return the file of a generator, of the package's for ``default``."""
    return default_model() if name == 'default' else Path(name).expanduser()


def make_networks(config: TrainConfig) -> tuple[Generator, Inpainter]:
    """Return both players, from the files that the options name or with random weights from the seed."""
    torch.manual_seed(config.run.seed)
    if config.network.channels % 2:
        raise UserError(f'network.channels is {config.network.channels}, but must be even')
    generator = Generator(FLOW_CHANNELS[config.network.flow_input], config.network.channels)
    inpainter = Inpainter()
    if config.start.model:
        path = generator_file(config.start.model)
        start = cast('Generator', load_network(path)[0])
        if start.flow_channels > generator.flow_channels:
            raise UserError(f'{path} takes evidence beside the flow: set network.flow_input to geometric')
        if start.channels != generator.channels:
            raise UserError(
                f'{path} has {start.channels} channels in its first layer and network.channels is '
                f'{generator.channels}: make them equal, or leave start.model empty'
            )
        generator.load_state_dict(start.widened(generator.flow_channels).state_dict())
    elif config.rendered.steps:
        with torch.no_grad():
            generator.conv17.gamma.fill_(SUPERVISED_GAIN)
    if config.start.inpainter:
        named = config.start.inpainter
        path = default_inpainter() if named == 'default' else Path(named).expanduser()
        inpainter.load_state_dict(load_network(path, 'inpainter')[0].state_dict())
    return generator, inpainter


def rendered_pairs(config: TrainConfig, size: tuple[int, int]) -> RenderedPairs:
    """Return the pairs that the options name, rendered at the size of the flow's images, with items at ``size``."""
    options = RenderedOptions(
        size=size,
        largest_gap=config.data.largest_gap,
        flights=config.rendered.flights,
        still_flights=config.rendered.still_flights,
        followed=config.rendered.followed,
        evidence=takes_evidence(config.network.flow_input),
        scene=SceneOptions(size=(config.flow.height, config.flow.width)),
    )
    return RenderedPairs(config.run.seed, options, partial(create_flow, config.flow, torch.device('cpu')))


def kept_pairs(config: TrainConfig, size: tuple[int, int], out: Path, setup: Setup) -> KeptPairs:
    """Return pairs of the same kind that are kept on disk, rendering those that are missing."""
    data, count = config.data, config.rendered.kept
    pairs = rendered_pairs(config, (data.height, data.width))
    folder = cache_folder(data, out)
    flow = flow_fingerprint(config.flow)
    own = keep_pairs(pairs, count, folder, flow, data.workers, progress=setup.group.leads)
    return KeptPairs(own, count, config.run.seed, size, pairs.options.image_dropout)


def _wide_teacher(config: TrainConfig, flow_input: FlowInput, setup: Setup) -> Generator | None:
    if not config.rendered.teacher or not config.rendered.steps:
        return None
    path = generator_file(config.rendered.teacher)
    teacher = cast('Generator', load_network(path)[0])
    if teacher.flow_channels != FLOW_CHANNELS[flow_input]:
        raise UserError(f'{path}, rendered.teacher, takes another network.flow_input than {flow_input}')
    setup.place(teacher)
    return teacher


def make_stages(
    config: TrainConfig, setup: Setup, networks: tuple[Generator, Inpainter], footage: Footage | None, out: Path
) -> list[Stage]:
    """Return the stages of a run in their order; those on footage only where there is some.

    The inpainter, when it alone is trained, does with rendered scenes. Raises UserError where a batch cannot be shared
    evenly by the processes: now, and not when its stage begins.
    """
    used: list[Any] = [config.rendered, *([config.inpainter] if footage or config.inpainter_alone else ())]
    for one in (*used, *((config.game, config.teacher) if footage else ())):
        if one.steps:
            setup.group.share(one.batch)
    setup.place(*networks)
    generator, inpainter = networks
    size, game = (config.network.height, config.network.width), config.game
    flow_input = cast('FlowInput', config.network.flow_input)
    scenes = rendered_pairs(config, size)
    share = config.teacher.rendered if footage and footage.targets else 0.0
    kept = config.rendered.kept and (config.rendered.steps or share)
    learnt: Dataset[Any] = kept_pairs(config, size, out, setup) if kept else scenes
    teacher = _wide_teacher(config, flow_input, setup)
    stages: list[Stage] = [MaskStage(setup, generator, learnt, config.rendered, flow_input, teacher)]
    options = CachedOptions(size, config.data.largest_gap, game.least_crop, evidence=takes_evidence(flow_input))
    if footage or config.inpainter_alone:
        boxed = CachedPairs(footage.clips, 2 * config.run.seed, options) if footage else scenes
        stages.append(InpainterStage(setup, inpainter, boxed, config.inpainter))
    if footage:
        played = CachedPairs(footage.clips, 2 * config.run.seed + 1, replace(options, second_gap=game.consistency > 0))
        stages.append(Game(setup, networks, played, game, flow_input))
    if footage and footage.targets:
        options = replace(options, least_crop=config.teacher.least_crop)
        lessons: Dataset[Any] = CachedPairs(footage.taught, 3 * config.run.seed, options, footage.targets)
        if share:
            lessons = MixedPairs(lessons, learnt, share, 3 * config.run.seed)
        stages.append(MaskStage(setup, generator, lessons, config.teacher, flow_input))
    return stages


def run_training(config: TrainConfig, out: Path, command: Sequence[str]) -> Outcome | None:
    """Train, or go on with the run that lies in ``out``; return what it has left, None in a process that does not lead.

    ``command`` are the arguments of the program, for the card.
    Raises UserError where options, footage, files or the folder are wrong, or the training diverged.
    """
    if not config.data.root and not config.rendered.steps and not config.inpainter_alone:
        raise UserError('there is nothing to train on: set data.root to your footage, or rendered.steps above 0')
    if not config.rendered.steps + config.inpainter.steps + config.game.steps + config.teacher.steps:
        raise UserError('rendered.steps, inpainter.steps, game.steps and teacher.steps are all 0; set one above 0')
    with session(out, config.run.device, config.run.threads) as (group, device):
        setup = Setup(group, device, config.data.workers, config.run.precision, config.run.seed)
        return repaired(lambda: _Run(config, out, setup, command).train(), alone=group.count == 1)


class _Run:
    """One attempt at a run."""

    def __init__(self, config: TrainConfig, out: Path, setup: Setup, command: Sequence[str]) -> None:
        self._config = config
        self._out = out
        self._setup = setup
        self._command = command
        self._footage = open_footage(config, out, setup)
        self._judge = self._make_judge()
        self._generator, self._inpainter = make_networks(config)
        # What the detector calls it.
        name = f'dis-{config.flow.preset}' if config.flow.backend == 'dis' else config.flow.backend
        self._metadata = {
            **as_text(config),
            'flow_input': config.network.flow_input,
            'flow_backend': name,
            'height': str(config.network.height),
            'width': str(config.network.width),
        }

    def train(self) -> Outcome | None:
        """Train; return what the run has left."""
        config, footage = self._config, self._footage
        networks = (self._generator, self._inpainter)
        stages = make_stages(config, self._setup, networks, footage, self._out)
        clips = footage.clips if footage else ()
        lengths = {clip.name: clip.frame_count for clip in clips}
        decides = identity(config, flow_fingerprint(config.flow), [clip.folder.name for clip in clips])
        if footage and footage.targets:
            decides['targets'] = [one.folder.name for one in footage.targets]
        names = candidate_names(stages, config.run.candidates)
        keep = self._save_candidate if self._judge else lambda name, network: None
        fit(stages, self._out, decides, config.run, self._setup.group, keep, config.run.candidates)
        if not self._setup.group.leads:
            return None
        if config.inpainter.steps + config.game.steps and (footage or config.inpainter_alone):
            model = self._save(self._inpainter, f'{config.name}-inpainter')
        if config.inpainter_alone:
            card = write_inpainter_card(config, self._command, lengths)
            return Outcome(model, (self._write(model.with_suffix('.md'), card.encode()),))
        # By their names: the folder may hold candidates of an earlier run.
        judged = {name: self._judge.judge(self._candidate(name)) for name in names} if self._judge else {}
        chosen = choose(judged, config.run.select) if judged else 'last'
        if judged:
            self._generator.load_state_dict(self._candidate(chosen).state_dict())
        told = self._told(judged, chosen)
        model = self._save(self._generator, config.name)
        card = write_card(config, self._command, lengths, judged, chosen)
        written = self._write(model.with_suffix('.md'), card.encode())
        return Outcome(model, (written, *told, f'next: {next_command(config, model)}'))

    def _save(self, network: nn.Module, name: str) -> Path:
        model = self._out / f'{name}.safetensors'
        save_network(network.cpu(), model, self._metadata)
        return model

    def _write(self, path: Path, content: bytes) -> str:
        write_atomically(path, content)
        return str(path)

    def _make_judge(self) -> Judge | None:
        """Return the judge of the candidates, if there will be any."""
        config = self._config
        if self._footage is None or not config.game.steps + config.teacher.steps:
            return None
        clips = self._footage.clips
        size = (config.network.height, config.network.width)
        form = InputForm(size, cast('FlowInput', config.network.flow_input))
        return Judge(clips, spread_frames(clips, JUDGED_FRAMES), form)

    def _save_candidate(self, name: str, network: nn.Module) -> None:
        path = self._out / 'candidates' / f'{name}.safetensors'
        save_network(copy.deepcopy(network).cpu(), path, self._metadata)

    def _candidate(self, name: str) -> nn.Module:
        return load_network(self._out / 'candidates' / f'{name}.safetensors')[0].to(self._setup.device)

    def _told(self, judged: Mapping[str, Judgement], chosen: str) -> list[str]:
        """Return what the run has reached, in lines."""
        if self._judge is None:
            return [f'pictures: {self._out / "pictures"}']
        first = next(iter(judged))
        before, after = judged[first], judged[chosen]
        pictures = [
            self._write(self._out / f'{name}.png', encode_png(self._judge.draw(self._candidate(candidate))).tobytes())
            for name, candidate in (('before', first), ('after', chosen))
        ]
        told = [
            f'candidate {chosen} of {", ".join(judged)}, by {self._config.run.select}',
            f'agreement of masks from different gaps: {before.agreement:.3f} before, {after.agreement:.3f} now',
            f'empty masks: {before.empty:.0%} before, {after.empty:.0%} now',
            f'masks before and now: {pictures[0]} {pictures[1]}',
        ]
        return told + (['the training has not helped: more footage or more steps'] if chosen == first else [])


def next_command(config: TrainConfig, model: Path) -> str:
    """Return the command that runs the detector with a model, on the flow that it was trained on."""
    flow = [(option, value_of(config.flow, option.name)) for option in options_of(FlowConfig)]
    given = {'model': str(model.resolve())}
    given |= {f'flow.{option.name}': str(value) for option, value in flow if value != option.default}
    options = ' '.join(f'-p {name}:={shlex.quote(value)}' for name, value in given.items())
    return f'ros2 run moving_object_detector detect --ros-args -r image:=/camera/image_raw {options}'
