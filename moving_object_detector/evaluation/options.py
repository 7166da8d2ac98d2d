"""The options of ``evaluate``, declared here only; flags, checks and the identity of a run derive from them."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.options import option, options_of, with_values
from moving_object_detector.common.program import add_settings

DATASETS: Final = ('davis2016', 'segtrackv2', 'fbms59', 'folder', 'bag', 'rendered', 'flights')
METHODS: Final = ('detector', 'masks', 'homography', 'mog2', 'everything', 'nothing')
LISTS: Final = ('sequences', 'variants')
"""Options that take several words on the command line, stored as one string with line feeds between them."""
_WITH_FRAMES: Final = ('davis2016', 'segtrackv2', 'fbms59', 'folder')

ONLY: Final[Mapping[str, tuple[str, Collection[str]]]] = {
    'root': ('dataset', (*_WITH_FRAMES, 'bag')),
    'split': ('dataset', ('davis2016', 'fbms59', 'folder')),
    'masks': ('dataset', ('folder',)),
    'still': ('dataset', ('folder', 'bag')),
    'fps': ('dataset', _WITH_FRAMES),
    'bag_topic': ('dataset', ('bag', 'folder')),
    'mask_topic': ('dataset', ('bag',)),
    'scenes': ('dataset', ('rendered',)),
    'scene_frames': ('dataset', ('rendered', 'flights')),
    'config': ('method', ('detector',)),
    'set': ('method', ('detector',)),
    'variants': ('method', ('detector',)),
    'predictions': ('method', ('masks',)),
    'predicted_topic': ('method', ('masks',)),
}
"""Options that apply only with some values of another option, and are refused otherwise."""
_APART: Final = ('out', 'overwrite', 'save_masks', 'sequences', 'config', 'variants')
"""Options that do not affect a sequence's scores, or are in the identity of a run in another form."""


@dataclass(frozen=True)
class EvaluateOptions:
    """All options of ``evaluate`` except the detector's."""

    dataset: str = option('davis2016', 'Kind of footage.', choices=DATASETS)
    root: str = option('', 'Data set, folder of frames or of such folders, video or bag.')
    split: str = option('', 'Split of the data set; by default val, for FBMS-59 test.')
    sequences: str = option('', 'Names of the sequences to evaluate; by default all.')
    masks: str = option('', 'Folder of the true masks, each named like its frame.')
    still: bool = option(False, 'Nothing moves on its own in the footage: every mask is a false alarm.')
    fps: float = option(0.0, 'Frame rate to assume; 0: that of the footage, 24 if it has none.', low=0)
    bag_topic: str = option('', 'Image topic of the bag; needed if it has several.')
    mask_topic: str = option('', 'Topic of the true masks in the bag, matched by stamp.')
    scenes: int = option(6, 'Rendered scenes with moving objects; one without is added per three.', low=1)
    scene_frames: int = option(40, 'Frames per rendered scene or flight.', low=2)
    method: str = option('detector', 'Source of the masks: detector, given masks or a baseline.', choices=METHODS)
    predictions: str = option('', 'Masks to score: folder with SEQUENCE/FRAME.png, or bag; by default the bag --root.')
    predicted_topic: str = option('', 'Topic of the masks to score, matched by stamp; frames without one are misses.')
    variants: str = option(
        '', 'Variants of the masks; the last is the main result. Default: zero_lag refined refined+(refinement.method).'
    )
    out: str = option('evaluation_output', 'Folder for the results; an interrupted run there is resumed.')
    overwrite: bool = option(False, 'Discard the results in --out and start over.')
    save_masks: bool = option(False, 'Save the masks of the last variant as PNG in DAVIS layout.')
    config: str = option('', 'Parameter file of the detector, such as config/cpu.yaml.')

    def list_of(self, name: str) -> list[str]:
        """Return the words of one of :data:`LISTS`."""
        return getattr(self, name).split('\n') if getattr(self, name) else []

    def identity(self) -> dict[str, Any]:
        """Return the options that affect scores: dataset and method, and all others that differ from their default."""
        values = [(one, getattr(self, one.name)) for one in options_of(type(self)) if one.name not in _APART]
        always = ('dataset', 'method')
        return {one.name: value for one, value in values if one.name in always or value != one.default}


def flag_of(name: str) -> str:
    """Return the flag of an option."""
    return f'--{name.replace("_", "-")}'


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each option, and ``--set``; flags that are not given are absent from the namespace."""
    for declared in options_of(EvaluateOptions):
        default = f' Default: {declared.default}.' if declared.kind is not bool and declared.default else ''
        details: dict[str, Any] = {'help': f'{declared.description}{default}'.replace('%', '%%')}
        if declared.kind is bool:
            details['action'] = 'store_true'
        elif declared.choices:
            details['choices'] = declared.choices
        else:
            details |= {'type': declared.kind, 'metavar': declared.name.upper()}
            if declared.name in LISTS:
                details |= {'nargs': '+', 'metavar': 'NAME'}
        parser.add_argument(flag_of(declared.name), default=argparse.SUPPRESS, **details)
    add_settings(parser, 'Options of the detector, such as window.past=3.')


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options given on a parsed command line, without empty ones, which launch files pass for none."""
    names = (*EvaluateOptions.__dataclass_fields__, 'set')
    return {name: value for name, value in vars(arguments).items() if name in names and value not in ('', [], None)}


def read_flags(arguments: argparse.Namespace) -> EvaluateOptions:
    """Return the options of a parsed command line.

    Raises UserError if a value is out of range, an option has no effect with the others, or one is missing.
    """
    given = given_options(arguments)
    values = {name: '\n'.join(value) if name in LISTS else value for name, value in given.items() if name != 'set'}
    if 'method' not in given and {'predictions', 'predicted_topic'} & set(given):
        values['method'] = 'masks'
    options = with_values(EvaluateOptions(), values)
    for name in given:
        other, allowed = ONLY.get(name, ('', ()))
        if other and getattr(options, other) not in allowed:
            raise UserError(
                f'{flag_of(name)} has no effect with {flag_of(other)} {getattr(options, other)}, only with '
                f'{", ".join(allowed)}; leave it out'
            )
    if options.still and (options.masks or options.mask_topic):
        raise UserError('--still declares that nothing moves, so it excludes --masks and --mask-topic; leave one out')
    if options.dataset in ONLY['root'][1] and not options.root:
        raise UserError(f'--dataset {options.dataset} needs --root, the path of the data')
    inside = options.dataset == 'bag' and options.predicted_topic
    if options.method == 'masks' and not (options.predictions or inside):
        raise UserError('--method masks needs the masks to score: --predictions, or --predicted-topic of a bag')
    return options
