"""The options of ``evaluate``: each is declared here once; flags, checks and the identity of a run are made of them."""

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
"""Options that take several words on the command line; they are kept with line feeds between them."""
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
"""Options that have an effect only with some values of another one; elsewhere they are refused."""
_APART: Final = ('out', 'overwrite', 'save_masks', 'sequences', 'config', 'variants')
"""Options that decide no number of a sequence, or stand in the identity of a run in another form."""


@dataclass(frozen=True)
class EvaluateOptions:
    """All options of ``evaluate`` but the detector's."""

    dataset: str = option('davis2016', 'Kind of footage.', choices=DATASETS)
    root: str = option('', 'Data set, folder of frames or of such folders, video or bag.')
    split: str = option('', 'Part of a data set; empty: val, of FBMS-59 test.')
    sequences: str = option('', 'Only these sequences.')
    masks: str = option('', 'Folder with the truth, each mask named as its frame.')
    still: bool = option(False, 'Nothing moves in the footage: every mask is a false alarm.')
    fps: float = option(0.0, "Frames per second in place of the footage's own rate; 0: its own, else 24.", low=0)
    bag_topic: str = option('', 'Images of a bag that has several image topics.')
    mask_topic: str = option('', 'Masks of a bag as truth, matched by their stamps.')
    scenes: int = option(6, 'Rendered scenes with moving objects; every third brings another without.', low=1)
    scene_frames: int = option(40, 'Frames of a rendered scene or flight.', low=2)
    method: str = option('detector', 'The detector, masks that are there, or a baseline.', choices=METHODS)
    predictions: str = option('', 'Masks to score: a folder with SEQUENCE/FRAME.png, or a bag; empty: in --root.')
    predicted_topic: str = option('', 'Masks of a bag to score, matched by their stamps; a frame without one counts.')
    variants: str = option('', 'Of the masks, such as zero_lag refined refined+crf, the default; the last one counts.')
    out: str = option('evaluation_output', 'Folder of the run; an interrupted run is resumed.')
    overwrite: bool = option(False, 'Begin anew where --out holds a run.')
    save_masks: bool = option(False, 'Keep the masks that count, as PNG in DAVIS layout.')
    config: str = option('', "The detector's parameters, a file such as config/cpu.yaml.")

    def list_of(self, name: str) -> list[str]:
        """Return the words of one of :data:`LISTS`."""
        return getattr(self, name).split('\n') if getattr(self, name) else []

    def identity(self) -> dict[str, Any]:
        """Return the options that decide numbers: what is scored on what, and all that are not at their defaults."""
        values = [(one, getattr(self, one.name)) for one in options_of(type(self)) if one.name not in _APART]
        always = ('dataset', 'method')
        return {one.name: value for one, value in values if one.name in always or value != one.default}


def flag_of(name: str) -> str:
    """Return the flag of an option."""
    return f'--{name.replace("_", "-")}'


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each option, and ``--set``; those that are not given leave no trace in the namespace."""
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
    add_settings(parser, "The detector's options, such as window.past=3.")


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options that a parsed command line has; an empty text is what a launch file passes for none."""
    names = (*EvaluateOptions.__dataclass_fields__, 'set')
    return {name: value for name, value in vars(arguments).items() if name in names and value not in ('', [], None)}


def read_flags(arguments: argparse.Namespace) -> EvaluateOptions:
    """Return the options that a parsed command line gives.

    Raises UserError where a value is out of range, an option has no effect beside the others, or one is missing.
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
        raise UserError('--still says that nothing moves, so --masks or --mask-topic has no effect; leave one out')
    if options.dataset in ONLY['root'][1] and not options.root:
        raise UserError(f'--dataset {options.dataset} needs --root, where the data is')
    inside = options.dataset == 'bag' and options.predicted_topic
    if options.method == 'masks' and not (options.predictions or inside):
        raise UserError('--method masks needs --predictions, or of a bag --predicted-topic: the masks to score')
    return options
