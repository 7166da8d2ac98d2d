"""A run of ``train``, from the options to the model file and its card."""

from __future__ import annotations

import copy
import dataclasses
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import torch
from torch import nn
from torch.utils.data import Dataset

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import file_hash, generator_path, share_folder, write_atomically
from moving_object_detector.common.options import options_of
from moving_object_detector.datasets.collection import find_clips, roots_of
from moving_object_detector.detection.build import choose_flow, create_flow, flow_precision
from moving_object_detector.detection.config import FlowConfig
from moving_object_detector.engines.create import choose_device, create_engine
from moving_object_detector.media.codecs import encode_png
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.networks.weights import (
    FLOW_CHANNELS,
    FlowInput,
    load_network,
    save_network,
    sees_both_sides,
)
from moving_object_detector.training.chunks import repaired
from moving_object_detector.training.config import DataConfig, FlowTrainConfig, TrainConfig
from moving_object_detector.training.flow_cache import CachedClip, CacheOptions, cached_clips
from moving_object_detector.training.game import Game
from moving_object_detector.training.loop import candidate_names, fit
from moving_object_detector.training.pairs import CachedOptions, CachedPairs, MixedPairs, Targets
from moving_object_detector.training.rendered import KeptPairs, RenderedOptions, RenderedPairs, keep_pairs
from moving_object_detector.training.selection import Judge, Judgement, spread_frames
from moving_object_detector.training.setup import Setup, session
from moving_object_detector.training.stages import InpainterStage, MaskStage, Stage
from moving_object_detector.training.teacher import Teacher

PATHS: Final = frozenset(
    {
        'data.root', 'data.cache', 'rendered.teacher', 'flow.model', 'start.model', 'start.inpainter',
        'validation.folder', 'teacher.detector',
    }
)  # fmt: skip
"""Options with paths of this machine, which are kept out of models and cards."""


class Outcome(NamedTuple):
    """The results of a run: model file, card, and lines to print, such as the scores and the next command."""

    model: Path
    card: Path
    told: Sequence[str] = ()


def options_told(config: object, *, changed: bool = False) -> dict[str, Any]:
    """Return options by dotted name, without paths: all of them, or those changed from their defaults."""
    public = [option for option in options_of(type(config)) if option.name not in PATHS]
    values = [(option, attrgetter(option.name)(config)) for option in public]
    return {option.name: value for option, value in values if not changed or value != option.default}


def identity(config: TrainConfig, fingerprint: str, clips: Sequence[str], taught_by: str = '') -> dict[str, Any]:
    """Return everything that affects the weights; a checkpoint belongs to a run with the same identity.

    Footage and its flow are identified by the cache keys of the ``clips``, a teacher by its key ``taught_by``, the flow
    of rendered pairs by ``fingerprint``.
    """
    plain = dataclasses.asdict(config)
    data, run = plain['data'], plain['run']
    plain['data'] = {key: data[key] for key in ('height', 'width', 'largest_gap')} | {'clips': list(clips)}
    # Without footage also an inpainter that is trained alone sees rendered pairs.
    plain['flow'] = fingerprint if config.rendered.steps or not clips else ''
    # Weights count by their content: another file may have come to the same path.
    plain['start'] = {
        'model': _content(model_file(config.start.model, config.flow) if config.start.model else None),
        'inpainter': _content(inpainter_file(config.start.inpainter) if config.start.inpainter else None),
    }
    teacher = config.rendered.teacher
    plain['rendered']['teacher'] = _content(model_file(teacher, config.flow) if teacher else None)
    plain['run'] = {key: run[key] for key in ('seed', 'precision', 'candidates')}
    del plain['teacher']['detector'], plain['name']
    return {**plain, **({'targets': [f'{clip}-{taught_by}' for clip in clips]} if taught_by else {})}


def flow_identity(config: FlowTrainConfig) -> dict[str, Any]:
    """Return the same for a training of PWC-Net."""
    plain = dataclasses.asdict(config)
    plain['run'] = {key: plain['run'][key] for key in ('seed', 'precision')}
    del plain['name'], plain['validation']
    start = config.start.model
    plain['start'] = {'model': _content(Path(start).expanduser() if start else None)}
    return plain


def _content(weights: Path | None) -> str:
    return file_hash(weights) if weights is not None and weights.is_file() else ''


def write_card(
    model: Path, config: object, rows: Mapping[str, str], text: Sequence[str], program: str, command: Sequence[str]
) -> Path:
    """Write a model's card next to it: a table of ``rows``, lines of ``text``, the command, the changed options."""
    rows = {**rows, 'made with': f'PyTorch {torch.__version__}, Python {platform.python_version()}'}
    lines = [f'# {model.name}', '', '| | |', '|---|---|', *(f'| {key} | {rows[key]} |' for key in rows)]
    lines += ['', *text, '', 'Command:', '', f'    ros2 run moving_object_detector {program} {shlex.join(command)}', '']
    if changed := [f'    {key}: {value}' for key, value in options_told(config, changed=True).items()]:
        lines += ['Options other than the defaults:', '', *changed, '']
    card = model.with_suffix('.md')
    write_atomically(card, '\n'.join(lines).encode())
    return card


# Cancels the divisor of the softmax, which would make supervised learning ten times slower.
SUPERVISED_GAIN: Final = 10.0
JUDGED_FRAMES: Final = 60
# Batch of a flow network's engine on footage; it splits the larger batches of the cache.
PAIRS_AT_ONCE: Final = 4


@dataclass(frozen=True)
class Footage:
    """Clips with cached flow and, if there is a teacher, its masks."""

    clips: Sequence[CachedClip] = ()
    targets: Sequence[Targets] = ()
    taught_by: str = ''
    """The teacher's key, see :class:`Teacher`."""


def flow_fingerprint(config: FlowConfig) -> str:
    """Return a string that identifies backend, settings and weights, as far as they affect the flow."""
    config = choose_flow(config)
    parts = [config.backend, f'{config.height}x{config.width}']
    if config.backend == 'dis':
        return ' '.join([*parts, config.preset])
    weights = Path(config.model).expanduser()
    return ' '.join([*parts, str(config.iterations), file_hash(weights) if weights.is_file() else ''])


def cache_folder(data: DataConfig, out: Path) -> Path:
    """Return the folder of the flow cache."""
    return Path(data.cache).expanduser() if data.cache else out / 'flow_cache'


def open_footage(config: TrainConfig, out: Path, setup: Setup) -> Footage:
    """Return a run's footage, if any, with its flow and the teacher's targets, computing what the cache lacks."""
    data, cache = config.data, cache_folder(config.data, out)
    if not data.root:
        return Footage()
    # First, so that missing weights show before the long computation of flow.
    teacher = Teacher(Path(config.teacher.detector), setup.device) if config.teacher.steps else None
    found = find_clips(roots_of(data.root), 'train', data.topic or None)
    flow, engine = choose_flow(config.flow), None
    fingerprint = flow_fingerprint(flow)
    if flow.backend != 'dis':
        # The detector's engine is several times as fast as eager PyTorch.
        precision = flow_precision(flow, 'auto', 'auto', setup.device)
        engine = create_engine('auto', setup.device, precision=precision)
        fingerprint += f' {engine.name} {engine.precision}'
    backend = create_flow(flow, setup.device, engine, PAIRS_AT_ONCE)
    options = CacheOptions((data.height, data.width), data.largest_gap)
    clips = cached_clips(found, cache, backend, fingerprint, options)
    if teacher is None:
        return Footage(clips)
    files = {clip.name: clip for clip in found}
    return Footage(clips, teacher.targets([(files[clip.name], clip) for clip in clips], cache), teacher.key)


def model_file(name: str, flow: FlowConfig) -> Path:
    """Return the file of a generator, where ``default`` and ``small`` are the package's for that flow."""
    return generator_path('' if name == 'default' else name, choose_flow(flow).backend)


def inpainter_file(name: str) -> Path:
    """Return the file of an inpainter, where ``default`` is the package's."""
    return share_folder() / 'models' / 'inpainter.safetensors' if name == 'default' else Path(name).expanduser()


def make_networks(config: TrainConfig) -> tuple[Generator, Inpainter]:
    """Return generator and inpainter, from the files of start.* or with random weights from the seed."""
    torch.manual_seed(config.run.seed)
    if config.network.channels % 2:
        raise UserError(f'network.channels is {config.network.channels}, but must be even')
    generator = Generator(FLOW_CHANNELS[config.network.flow_input], config.network.channels)
    inpainter = Inpainter()
    if config.start.model:
        path = model_file(config.start.model, config.flow)
        loaded, about = load_network(path)
        start, form = cast('Generator', loaded), about['flow_input']
        if form != config.network.flow_input and 'normalised' in (form, config.network.flow_input):
            raise UserError(f'{path} takes flow in the form {form}: set network.flow_input to {form}')
        if start.flow_channels > generator.flow_channels:
            wanted = 'both_sides' if start.flow_channels == FLOW_CHANNELS['both_sides'] else 'geometric'
            raise UserError(f'{path} takes more channels of flow: set network.flow_input to {wanted}')
        if start.channels != generator.channels:
            raise UserError(
                f'{path} has {start.channels} channels in its first layer and network.channels is '
                f'{generator.channels}: make them equal, or leave start.model empty'
            )
        if sees_both_sides(config.network.flow_input) and start.flow_channels < generator.flow_channels:
            start = start.widened(generator.flow_channels // 2).doubled()
        generator.load_state_dict(start.widened(generator.flow_channels).state_dict())
    elif config.rendered.steps:
        with torch.no_grad():
            generator.conv17.gamma.fill_(SUPERVISED_GAIN)
    if config.start.inpainter:
        path = inpainter_file(config.start.inpainter)
        inpainter.load_state_dict(load_network(path, 'inpainter')[0].state_dict())
    return generator, inpainter


def rendered_pairs(config: TrainConfig, size: tuple[int, int]) -> RenderedPairs:
    """Return the rendered pairs of a run: rendered at flow.height x flow.width, items at ``size``."""
    options = RenderedOptions(
        size=size,
        largest_gap=config.data.largest_gap,
        flights=config.rendered.flights,
        still_flights=config.rendered.still_flights,
        followed=config.rendered.followed,
        flow_input=cast('FlowInput', config.network.flow_input),
        scene=replace(RenderedOptions().scene, size=(config.flow.height, config.flow.width)),
    )
    # Each rendering process has its own copy of a flow network on the device.
    device = choose_device(config.run.device, 'run.device')
    return RenderedPairs(config.run.seed, options, partial(create_flow, config.flow, device))


def kept_pairs(config: TrainConfig, size: tuple[int, int], out: Path) -> KeptPairs:
    """Return such pairs stored on disk, rendering the missing ones."""
    data, count = config.data, config.rendered.kept
    pairs = rendered_pairs(config, (data.height, data.width))
    folder = keep_pairs(pairs, count, cache_folder(data, out), flow_fingerprint(config.flow), config.run.workers)
    return KeptPairs(folder, count, config.run.seed, size, pairs.options)


def _wide_teacher(config: TrainConfig, flow_input: FlowInput, setup: Setup) -> Generator | None:
    if not config.rendered.teacher or not config.rendered.steps:
        return None
    path = model_file(config.rendered.teacher, config.flow)
    loaded, about = load_network(path)
    teacher = cast('Generator', loaded)
    if about['flow_input'] not in (flow_input, 'geometric' if sees_both_sides(flow_input) else flow_input):
        raise UserError(f'rendered.teacher {path} takes another network.flow_input than {flow_input}; leave it empty')
    setup.place(teacher)
    return teacher


def make_stages(
    config: TrainConfig, setup: Setup, networks: tuple[Generator, Inpainter], footage: Footage, out: Path
) -> list[Stage]:
    """Return the stages of a run in order; those on footage only if there is some.

    An inpainter that is trained alone can use rendered scenes instead.
    """
    setup.place(*networks)
    generator, inpainter = networks
    size, seed = (config.network.height, config.network.width), config.run.seed
    flow_input = cast('FlowInput', config.network.flow_input)
    share = config.teacher.rendered if footage.targets else 0.0
    kept = config.rendered.kept and (config.rendered.steps or share)
    rendered: Dataset[Any] = kept_pairs(config, size, out) if kept else rendered_pairs(config, size)
    teacher = _wide_teacher(config, flow_input, setup)
    stages: list[Stage] = [MaskStage(setup, generator, rendered, config.rendered, flow_input, teacher)]
    options = CachedOptions(size, flow_input=flow_input)
    if footage.clips or config.inpainter_alone:
        boxed = CachedPairs(footage.clips, 2 * seed, options) if footage.clips else rendered
        stages.append(InpainterStage(setup, inpainter, boxed, config.inpainter))
    if footage.clips:
        second = replace(options, second_gap=config.game.consistency > 0)
        played = CachedPairs(footage.clips, 2 * seed + 1, second)
        stages.append(Game(setup, networks, played, config.game, flow_input))
    if footage.targets:
        lessons: Dataset[Any] = CachedPairs(footage.clips, 3 * seed, options, footage.targets)
        if share:
            lessons = MixedPairs(lessons, rendered, share, 3 * seed)
        stages.append(MaskStage(setup, generator, lessons, config.teacher, flow_input))
    return stages


def run_training(config: TrainConfig, out: Path, command: Sequence[str]) -> Outcome:
    """Train, or resume the run in ``out``; return its results.

    ``command`` are the arguments of the program, for the card.
    Raises UserError if options, footage, files or the folder are wrong, or the training diverges.
    """
    if not config.data.root and not config.rendered.steps and not config.inpainter_alone:
        raise UserError('there is nothing to train on: set data.root to your footage, or rendered.steps above 0')
    if not config.rendered.steps + config.inpainter.steps + config.game.steps + config.teacher.steps:
        raise UserError('rendered.steps, inpainter.steps, game.steps and teacher.steps are all 0; set one above 0')
    # Named in the model, its card and the next command as it was, not as auto.
    config = replace(config, flow=choose_flow(config.flow))
    with session(out, config.run) as setup:
        return repaired(lambda: _train(config, out, setup, command))


def _train(config: TrainConfig, out: Path, setup: Setup, command: Sequence[str]) -> Outcome:
    generator, inpainter = networks = make_networks(config)
    footage = open_footage(config, out, setup)
    stages = make_stages(config, setup, networks, footage, out)
    size, clips, flow_input = (config.network.height, config.network.width), footage.clips, config.network.flow_input
    # The detector's name for the backend.
    flow = f'dis-{config.flow.preset}' if config.flow.backend == 'dis' else config.flow.backend
    about = {'flow_input': flow_input, 'flow_backend': flow, 'height': str(size[0]), 'width': str(size[1])}

    def save(name: str, network: nn.Module) -> Path:
        path = out / f'{name}.safetensors'
        options = {name: str(value) for name, value in options_told(config).items()}
        save_network(copy.deepcopy(network).cpu(), path, {**options, **about})
        return path

    def candidate(name: str) -> nn.Module:
        return load_network(out / 'candidates' / f'{name}.safetensors')[0].to(setup.device)

    keys = [clip.folder.name for clip in clips]
    decides = identity(config, flow_fingerprint(config.flow), keys, footage.taught_by)
    fit(stages, out, decides, config.run, lambda name, kept: save(f'candidates/{name}', kept), config.run.candidates)
    if any(stage.name == 'inpainter' and stage.steps for stage in stages) or (clips and config.game.steps):
        model = save(f'{config.name}-inpainter', inpainter)
    text = ['No annotated frame was used.']
    rows = {'network': f'mask generator of the CVPR 2019 paper, {config.network.channels} channels in its first layer'}
    if config.inpainter_alone:
        rows['network'] = 'flow inpainter of the CVPR 2019 paper, 3,388,610 parameters'
    rows |= _trained_on(config, footage, stages)
    if config.inpainter_alone:
        return Outcome(model, write_card(model, config, rows, text, 'train', command))
    told = [f'pictures: {out / "pictures"}']
    # Listed by name, since the folder may hold candidates of an earlier run.
    if names := candidate_names(stages, config.run.candidates):
        judge = Judge(clips, spread_frames(clips, JUDGED_FRAMES), size, cast('FlowInput', flow_input))
        judged = {name: judge.judge(candidate(name)) for name in names}
        # The first maximum: the initial generator if training did not help.
        chosen = max(names, key=lambda name: judged[name].agreement)
        for picture, name in (('before', names[0]), ('after', chosen)):
            write_atomically(out / f'{picture}.png', encode_png(judge.draw(candidate(name))).tobytes())
        told = _told(judged, chosen, out)
        generator.load_state_dict(candidate(chosen).state_dict())
        rows['chosen'] = f'candidate {chosen}, by agreement between gaps'
        text += ['', '| candidate | agreement between gaps | empty masks |', '|---|---|---|']
        text += [f'| {name} | {one.agreement:.3f} | {one.empty:.3f} |' for name, one in judged.items()]
    model = save(config.name, generator)
    card = write_card(model, config, rows, text, 'train', command)
    return Outcome(model, card, [*told, f'next: {next_command(config, model)}'])


def _trained_on(config: TrainConfig, footage: Footage, stages: Sequence[Stage]) -> dict[str, str]:
    """Return rows of the card: input, data and steps of the training."""
    network, flow, teacher = config.network, config.flow, config.rendered.teacher
    inputs = f'{network.height}x{network.width} RGB in [-0.5, 0.5]; `{network.flow_input}` flow by {flow.backend}'
    rows = {'input': f'{inputs} at {flow.height}x{flow.width}'}
    if config.start.model:
        rows['started from'] = Path(config.start.model).name
    clips = footage.clips
    frames, names = sum(clip.frame_count for clip in clips), ', '.join(clip.name for clip in clips)
    rows['unlabelled video'] = f'{len(clips)} clips, {frames} frames: {names}' if clips else 'none: rendered scenes'
    rows |= {f'stage {one.name}': f'{one.steps} steps of {one.batch} pairs' for one in stages if one.steps}
    if footage.taught_by:
        rows['teacher'] = f'masks of the detector of {Path(config.teacher.detector).name} ({footage.taught_by})'
    if teacher and config.rendered.steps:
        rows['masks of scenes'] = f'exact ones and, with equal weight, those of `{Path(teacher).name}`'
    return rows


def _told(judged: Mapping[str, Judgement], chosen: str, out: Path) -> list[str]:
    first = next(iter(judged))
    before, after = judged[first], judged[chosen]
    told = [
        f'chosen candidate: {chosen} of {", ".join(judged)}, by agreement',
        f'agreement of masks from different gaps: {before.agreement:.3f} before, {after.agreement:.3f} after',
        f'empty masks: {before.empty:.0%} before, {after.empty:.0%} after',
        f'masks before and after: {out / "before.png"} {out / "after.png"}',
    ]
    return told + (['the training did not help: try more footage or more steps'] if chosen == first else [])


def next_command(config: TrainConfig, model: Path) -> str:
    """Return the command that runs the detector with a model and the flow options of its training."""
    given = {'model': str(model.resolve())}
    given |= {f'flow.{name}': str(value) for name, value in options_told(config.flow, changed=True).items()}
    options = ' '.join(f'-p {name}:={shlex.quote(value)}' for name, value in given.items())
    return f'ros2 run moving_object_detector detect --ros-args -r image:=/camera/image_raw {options}'
