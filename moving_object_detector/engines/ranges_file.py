"""Files with the ranges that the quantised generator rounds within: safetensors, which cannot hold code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from moving_object_detector.common.errors import ModelError
from moving_object_detector.common.files import write_atomically
from moving_object_detector.engines.fingerprint import weights_hash
from moving_object_detector.engines.quantised import Ranges, quantised_layers
from moving_object_detector.networks.generator import Generator

FORMAT: Final = '1'
KIND: Final = 'int8 ranges'
LARGEST: Final = 1 << 20
"""Bytes: the file of this generator has a hundredth."""
REMEDY: Final = 'run quantise on the model, or set precision to auto'


def ranges_path(model: Path) -> Path:
    """Return where the ranges of a model file are: NAME-int8.safetensors next to NAME.safetensors."""
    return model.with_name(f'{model.stem}-int8{model.suffix}')


def save_ranges(path: Path, generator: Generator, ranges: Ranges, metadata: Mapping[str, str]) -> None:
    """Write ranges; a reader sees the old file or the new one.

    Args:
        path: The file.
        generator: What they were measured on; the file is good for just these weights.
        ranges: Of its layers' inputs.
        metadata: Text about how they were measured.

    Raises:
        ModelError: The file cannot be written.

    """
    header = {**metadata, 'format': FORMAT, 'kind': KIND, 'weights': weights_hash(generator)}
    try:
        write_atomically(path, save({name: bounds.contiguous() for name, bounds in ranges.items()}, header))
    except OSError as error:
        raise ModelError(f'{path}: cannot be written: {error.strerror}; give a path in a folder you own') from error


def load_ranges(path: Path, generator: Generator) -> dict[str, Tensor]:
    """Read and check ranges.

    Args:
        path: A file of :func:`save_ranges`.
        generator: With its weights loaded, which the ranges must have been measured on.

    Raises:
        ModelError: The file is missing, damaged or of other weights; the message says what to do.

    """
    if not path.is_file():
        raise ModelError(f'{path}: is missing; precision int8 needs the ranges of the model: {REMEDY}')
    if path.stat().st_size > LARGEST:
        raise ModelError(f'{path}: is too large to hold ranges; {REMEDY}')
    try:
        with safe_open(path, framework='pt') as file:
            metadata = dict(file.metadata() or {})
            ranges = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except (SafetensorError, OSError) as error:
        raise ModelError(f'{path}: cannot be read ({error}); {REMEDY}') from error
    if metadata.get('kind') != KIND or metadata.get('format') != FORMAT:
        raise ModelError(f'{path}: holds no int8 ranges of this version; {REMEDY}')
    if metadata.get('weights') != weights_hash(generator):
        raise ModelError(f'{path}: was measured on other weights than the model has; {REMEDY}')
    _check(path, generator, ranges)
    return ranges


def _check(path: Path, generator: Generator, ranges: Mapping[str, Tensor]) -> None:
    shapes = {name: (2, layer.conv.in_channels) for name, layer in quantised_layers(generator).items()}
    found = {name: tuple(bounds.shape) for name, bounds in ranges.items() if bounds.dtype is torch.float32}
    if found != shapes or len(ranges) != len(shapes):
        raise ModelError(f'{path}: its tensors are not those of the generator; {REMEDY}')
    for bounds in ranges.values():
        if not bounds.isfinite().all() or (bounds[0] > 0).any() or (bounds[1] < 0).any():
            raise ModelError(f'{path}: its ranges are not finite or leave out zero; {REMEDY}')
