"""Model files: safetensors with string metadata, which cannot hold code.

Every file has the metadata ``format`` (2: with a checksum; 1, of other tools and earlier versions: without) and
``architecture`` (:data:`ARCHITECTURES`). Generators and inpainters also have ``flow_input`` (how their flow is
prepared, :data:`FLOW_INPUTS`), ``flow_backend`` (of their training flow), and ``height`` and ``width`` (of their
training input, pixels). Other entries may be added.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from moving_object_detector.common.errors import ModelError, foreign, shown
from moving_object_detector.common.files import atomic_file, open_file
from moving_object_detector.networks.generator import IMAGE_CHANNELS, Generator
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.networks.raft_small import RaftSmall

FORMAT: Final = '2'
_WITHOUT_CHECKSUM: Final = '1'
"""Format of other tools and earlier versions: the checksum is optional, but checked if present."""
ARCHITECTURES: Final[Mapping[str, type[nn.Module]]] = {
    'generator': Generator,
    'inpainter': Inpainter,
    'pwcnet': PWCNet,
    'raft_small': RaftSmall,
}
FLOW_NETWORKS: Final = ('pwcnet', 'raft_small')
FlowInput = Literal['normalised', 'residual', 'geometric', 'both_sides']
"""See ``generator_flow`` in flow/generator_input.py."""
FLOW_INPUTS: Final[tuple[FlowInput, ...]] = get_args(FlowInput)
FLOW_CHANNELS: Final[Mapping[str, int]] = {'normalised': 2, 'residual': 2, 'geometric': 8, 'both_sides': 16}
CONVERT: Final = 'ros2 run moving_object_detector convert_weights'
# First bytes of files of torch.save: zip archives since PyTorch 1.6, pickles before.
_PYTORCH_STARTS: Final = (b'PK\x03\x04', b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05')
FLOATS: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MOST_FLOW_CHANNELS: Final = 32
MOST_CHANNELS: Final = 128
MOST_PIXELS: Final = {'height': 2048, 'width': 4096}
CHECKSUM: Final = 'sha256'
"""Metadata key of the checksum of metadata and tensors, required in this format."""
_NAMED_TENSORS: Final = 3


def takes_evidence(flow_input: str) -> bool:
    """Tell whether a generator with this input takes evidence beside its flow."""
    return FLOW_CHANNELS[flow_input] > 2


def sees_both_sides(flow_input: str) -> bool:
    """Tell whether a generator with this input takes an earlier and a later neighbour at once."""
    return flow_input == 'both_sides'


def save_network(module: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    """Write the weights of a network of :data:`ARCHITECTURES`, atomically.

    ``metadata`` is that of the module's docstring without ``format`` and ``architecture``, which are added. Raises
    ModelError if metadata is missing or wrong, a weight is not finite, or the file cannot be written.
    """
    path = Path(path)
    architecture = next((name for name, kind in ARCHITECTURES.items() if type(module) is kind), None)
    if architecture is None:
        raise ModelError(f'{path}: a {type(module).__name__} cannot be saved; known are {", ".join(ARCHITECTURES)}')
    metadata = {**metadata, 'format': FORMAT, 'architecture': architecture}
    _check_metadata(path, metadata)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    check_tensors(path, architecture, state)
    write_tensors(path, state, metadata)


def write_tensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with a checksum; equal content gives equal bytes. ModelError if it cannot be written.

    The library alone orders metadata differently in each process.
    """
    plain = save(dict(state))
    start = 8 + int.from_bytes(plain[:8], 'little')
    text = {**metadata, CHECKSUM: weights_hash(state, metadata)}
    header = {'__metadata__': dict(sorted(text.items())), **json.loads(plain[8:start])}
    coded = json.dumps(header, ensure_ascii=False, separators=(',', ':')).encode()
    coded += b' ' * (-len(coded) % 8)
    try:
        with atomic_file(path) as file:
            file.write(len(coded).to_bytes(8, 'little') + coded + plain[start:])
    except OSError as error:
        raise ModelError(f'{path}: cannot be written: {error.strerror}; give a path in a folder you own') from error


def weights_hash(state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Return the SHA-256 of a module's state (names, types, shapes and values) and of metadata, if given."""
    total = hashlib.sha256(b'' if metadata is None else json.dumps(dict(metadata), sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        total.update(f'{name} {tensor.dtype} {tuple(tensor.shape)};'.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def load_weights(path: str | os.PathLike[str], expect: str = 'generator') -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return state dict (float32, on the CPU) and metadata of a model file of the architecture ``expect``.

    Raises ModelError if the file is missing, damaged or of another kind, or a tensor is missing, of a wrong shape or
    not finite.
    """
    path = Path(path)
    state, metadata = read_tensors(path, _check_metadata)
    if metadata['architecture'] != expect:
        raise ModelError(
            f'{path}: holds weights of architecture {metadata["architecture"]} where {expect} is needed; '
            'give another file'
        )
    check_tensors(path, expect, state)
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}, metadata


def load_network(path: str | os.PathLike[str], expect: str = 'generator') -> tuple[nn.Module, dict[str, str]]:
    """Return network (float32, on the CPU, in eval mode) and metadata of a model file; see :func:`load_weights`."""
    state, metadata = load_weights(path, expect)
    module = build_network(expect, state)
    if isinstance(module, Generator) and module.flow_channels != FLOW_CHANNELS[metadata['flow_input']]:
        raise ModelError(
            f'{path}: its weights take {module.flow_channels} channels of flow, but its flow_input '
            f'{metadata["flow_input"]} has {FLOW_CHANNELS[metadata["flow_input"]]}; train or convert it again'
        )
    return module, metadata


def build_network(architecture: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Return a network with the weights of a state dict that :func:`check_tensors` has passed, in eval mode."""
    module = _empty_network(architecture, state)
    module.load_state_dict(state, assign=True)
    return module.eval()


def _empty_network(architecture: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Return a network without memory for its weights; a generator's channels are those of the weights."""
    with torch.device('meta'):
        if architecture == 'generator' and (first := state.get('conv1.conv.weight')) is not None and first.ndim == 4:
            flow_channels = min(max(first.shape[1] - IMAGE_CHANNELS, 2), MOST_FLOW_CHANNELS)
            scale = state.get('conv1.gamma', first)
            channels = min(max(scale.shape[0] // 2 * 2, 2), MOST_CHANNELS) if scale.ndim else 2
            return Generator(flow_channels, channels)
        return ARCHITECTURES[architecture]()


def check_tensors(path: str | os.PathLike[str], architecture: str, state: Mapping[str, Tensor]) -> None:
    """Check a file's state dict against its network; ModelError if they differ or a value is not finite."""
    expected = _empty_network(architecture, state).state_dict()
    problems = [
        *(f'{name} is missing' for name in expected if name not in state),
        *(f'{foreign(name)} is unexpected' for name in state if name not in expected),
        *(
            f'{name} is {tuple(state[name].shape)} and should be {tuple(tensor.shape)}'
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
        ),
        *(f'{foreign(name)} holds {tensor.dtype}' for name, tensor in state.items() if tensor.dtype not in FLOATS),
    ]
    if problems:
        more = f' and {len(problems) - _NAMED_TENSORS} more' if len(problems) > _NAMED_TENSORS else ''
        named = '; '.join(problems[:_NAMED_TENSORS])
        raise ModelError(f'{path}: is not a {architecture} of this version: {named}{more}; train or convert it again')
    # In float32, as computed with: a finite float64 may overflow.
    broken = [name for name, tensor in state.items() if not bool(tensor.to(torch.float32).isfinite().all())]
    if broken:
        raise ModelError(
            f'{path}: {broken[0]} holds values that are not finite ({len(broken)} of {len(state)} tensors do); '
            'the training diverged or the file is damaged: take an earlier checkpoint'
        )


def read_tensors(
    path: Path, check: Callable[[Path, Mapping[str, str]], None]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file and its metadata, which must pass ``check`` first; raises ModelError."""
    if is_pytorch(path):
        raise ModelError(
            f'{path}: is a PyTorch file, which can hold code and is not loaded; give a .safetensors file (only '
            'flow.model takes the original files of the authors of PWC-Net and RAFT-small)'
        )
    try:
        with safe_open(path, framework='pt') as file:
            metadata = dict(file.metadata() or {})
            check(path, metadata)
            checksum = metadata.pop(CHECKSUM, '')
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f'{path}: is not a whole safetensors file ({foreign(error, 200)}); copy or download it again, '
            f'or import a TensorFlow checkpoint with: {CONVERT} {path} OUTPUT.safetensors'
        ) from error
    if (checksum or metadata['format'] == FORMAT) and weights_hash(state, metadata) != checksum:
        raise ModelError(f'{path}: is damaged: its checksum does not match; copy it again from its source')
    return state, metadata


def is_pytorch(path: Path) -> bool:
    """Tell whether torch.save wrote a file; raises ModelError if it is no file, empty or unreadable."""
    if not path.exists():
        raise ModelError(f'{path}: no such model file; check the path')
    if not path.is_file():
        raise ModelError(f'{path}: is not a file; give the path of a .safetensors file')
    try:
        with open_file(path) as file:
            start = file.read(9)
    except OSError as error:
        raise ModelError(f'{path}: cannot be read: {error.strerror}; check its permissions') from error
    if not start:
        raise ModelError(f'{path}: is empty; copy or download it again')
    # The length field at the start of a safetensors file may look like a pickle, but JSON follows.
    return start.startswith(_PYTORCH_STARTS) and start[8:] != b'{'


def _check_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    if 'architecture' not in metadata or 'format' not in metadata:
        raise ModelError(
            f'{path}: has no metadata of this project; give a file that train, get_weights or convert_weights wrote'
        )
    if metadata['format'] not in {FORMAT, _WITHOUT_CHECKSUM}:
        found = foreign(metadata['format'])
        raise ModelError(f'{path}: has format {found}, and this version reads {FORMAT}; update moving_object_detector')
    if metadata['architecture'] not in ARCHITECTURES:
        raise ModelError(
            f'{path}: holds the architecture {shown(metadata["architecture"])}; known are {", ".join(ARCHITECTURES)}'
        )
    if metadata['architecture'] in FLOW_NETWORKS:
        return
    missing = [key for key in ('flow_input', 'flow_backend', 'height', 'width') if not metadata.get(key)]
    if missing:
        raise ModelError(f'{path}: its metadata lacks {", ".join(missing)}; train or convert it again')
    if metadata['flow_input'] not in FLOW_INPUTS:
        raise ModelError(
            f'{path}: its flow_input is {shown(metadata["flow_input"])}; known are {", ".join(FLOW_INPUTS)}'
        )
    for key, most in MOST_PIXELS.items():
        text = metadata[key]
        if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) <= most):
            raise ModelError(f'{path}: its {key} is {shown(text)} and should be a whole number from 1 to {most}')
