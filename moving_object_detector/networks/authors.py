"""Reading the checkpoints released by the authors of the paper, of PWC-Net and of RAFT."""

from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moving_object_detector.common.errors import ModelError, shown
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.networks.weights import build_network, check_tensors, is_pytorch, load_network

Arrays = Mapping[str, NDArray[np.float32]]

_GENERATOR_SUFFIXES: Final = {2: 'downsample', 4: 'downsample', **dict.fromkeys((7, 8, 9, 10), 'atrous')}
_NAMED_VARIABLES: Final = 3
TORCHVISION: Final = (
    (r'^feature_encoder\.', 'fnet.'),
    (r'^context_encoder\.', 'cnet.'),
    (r'^(.net)\.conv\.', r'\1.conv2.'),
    (r'^(.net)\.convnormrelu\.0\.', r'\1.conv1.'),
    (r'\.convnormrelu([123])\.0\.', r'.conv\1.'),
    (r'\.motion_encoder\.conv(c|f)(?:orr|low)([12])\.0\.', r'.encoder.conv\1\2.'),
    (r'\.motion_encoder\.conv\.0\.', '.encoder.conv.'),
    (r'\.recurrent_block\.convgru1\.', '.gru.'),
)
"""Substitutions, in order, that turn torchvision's tensor names of RAFT-small into the authors'."""


def _generator_names() -> dict[str, str]:
    names = {}
    norms = 0
    for number in range(1, 18):
        suffix = _GENERATOR_SUFFIXES.get(number)
        if number in {13, 15}:
            # These two open their own scope, in which TensorFlow numbers norms from the start.
            conv = f'conv{number}_upsample/conv{number}_upsample_conv'
            norm = f'conv{number}_upsample/batch_normalization'
        else:
            conv = f'conv{number}_{suffix}' if suffix else f'conv{number}'
            norm = f'batch_normalization_{norms}' if norms else 'batch_normalization'
            norms += 1
        names[f'conv{number}.conv.weight'] = f'MaskNet/{conv}/kernel'
        names[f'conv{number}.conv.bias'] = f'MaskNet/{conv}/bias'
        names[f'conv{number}.gamma'] = f'MaskNet/{norm}/gamma'
        names[f'conv{number}.beta'] = f'MaskNet/{norm}/beta'
    return names


def _inpainter_names() -> dict[str, str]:
    with torch.device('meta'):
        ours = Inpainter().state_dict()
    kinds = {'weight': 'weights', 'bias': 'biases'}
    return {name: f'FlownetS/{name.split(".")[0]}/{kinds[name.split(".")[1]]}' for name in ours}


def from_tensorflow(arrays: Arrays, architecture: str, source: str) -> dict[str, Tensor]:
    """Convert the ``generator`` or ``inpainter`` of the authors' TensorFlow checkpoint to a float32 state dict.

    Names in ``arrays`` have single or double slashes; kernels (height, width, in, out) become (out, in, height, width).
    Other variables are ignored. Raises ModelError, naming the file ``source``, if one is missing.
    """
    found = {re.sub('/+', '/', name): array for name, array in arrays.items()}
    # The release uses name scopes, which end in a slash, as variable scopes: hence double slashes.
    names = _generator_names() if architecture == 'generator' else _inpainter_names()
    missing = [theirs for theirs in names.values() if theirs not in found]
    if missing:
        listed = ', '.join(missing[:_NAMED_VARIABLES])
        raise ModelError(
            f'{source}: holds no {architecture} of the released code: {len(missing)} of {len(names)} variables are '
            f'missing ({listed}, ...); give a checkpoint written by train.py of the release'
        )
    state = {}
    for ours, theirs in names.items():
        array = np.asarray(found[theirs], dtype=np.float32)
        state[ours] = torch.from_numpy(np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array))
    return state


def read_pytorch(path: Path | str, content: bytes | None = None) -> object:
    """Read a PyTorch checkpoint of tensors and plain values, from a file or its ``content``; else ModelError."""
    try:
        file = path if content is None else io.BytesIO(content)
        return torch.load(file, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f'{path}: was not loaded: it holds more than tensors, which could run code, or is damaged, or no '
            'PyTorch checkpoint at all; get it from its authors again'
        ) from error
    except Exception as error:  # torch.load raises anything on a damaged file
        raise ModelError(f'{path}: is no whole PyTorch checkpoint; copy it again from its source') from error


def from_pytorch(checkpoint: object, source: str) -> dict[str, Tensor]:
    """Return the state dict of a PyTorch checkpoint: the authors' PWC-Net or RAFT-small, or torchvision's RAFT-small.

    The checkpoint is the state dict, or a dict that has it as ``state_dict``; names may start with ``module.``, as
    DataParallel writes them. Raises ModelError, naming the file ``source``, if it holds anything but named tensors.
    """
    remedy = 'give the pwc_net.pth.tar or raft-small.pth of the release'
    if isinstance(checkpoint, Mapping):
        checkpoint = checkpoint.get('state_dict', checkpoint)
    if not isinstance(checkpoint, Mapping) or not checkpoint:
        raise ModelError(f'{source}: holds no state dict; {remedy}')
    state = {}
    for name, tensor in checkpoint.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelError(f'{source}: {shown(name)} is no tensor with a name; {remedy}')
        state[name.removeprefix('module.')] = tensor.float()
    if any(name.startswith('feature_encoder.') for name in state):
        for pattern, authors in TORCHVISION:
            state = {re.sub(pattern, authors, name): tensor for name, tensor in state.items()}
    return state


def load_flow_network(path: str | os.PathLike[str], architecture: str) -> nn.Module:
    """Build ``pwcnet`` or ``raft_small`` from a model file or its authors' PyTorch checkpoint; raises ModelError."""
    path = Path(path).expanduser()
    if not is_pytorch(path):
        return load_network(path, architecture)[0]
    state = from_pytorch(read_pytorch(path), str(path))
    check_tensors(path, architecture, state)
    return build_network(architecture, state)
