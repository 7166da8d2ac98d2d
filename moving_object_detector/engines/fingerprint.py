"""What tells one built engine from another."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

PACKAGE = 'moving_object_detector'


def weights_hash(module: nn.Module) -> str:
    """Return the SHA-256 of a module's state: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)};'.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def code_hash(module: nn.Module, *others: object) -> str:
    """Return the SHA-256 of this project's source files that a module, its parts and other objects are written in."""
    files = set()
    for kind in {type(each) for each in (*module.modules(), *others)}:
        source = inspect.getsourcefile(kind) if kind.__module__.startswith(PACKAGE) else None
        files.add(Path(source) if source else None)
    digest = hashlib.sha256()
    for file in sorted(file for file in files if file is not None):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def shapes_text(examples: Iterable[Tensor], *, batch: bool) -> str:
    """Return the sizes of inputs as text, with or without the batch."""
    return ' '.join('x'.join(map(str, each.shape if batch else ('n', *each.shape[1:]))) for each in examples)
