"""Import weights that others released: PWC-Net, RAFT-small (PyTorch), generator and inpainter (TensorFlow)."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moving_object_detector.common.errors import ModelError, UserError
from moving_object_detector.common.program import positive_int, run_program

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TENSORFLOW_ENDING = re.compile(r'\.(index|meta|data-\d{5}-of-\d{5})$')


def read_tensorflow(prefix: Path) -> dict[str, NDArray[np.float32]]:
    """Read the floating-point variables of a TensorFlow checkpoint.

    Args:
        prefix: Path of the checkpoint without ``.index``.

    Raises:
        UserError: TensorFlow is not installed.
        ModelError: The checkpoint cannot be read.

    """
    # Else TensorFlow tells of processor features and missing GPUs before our one line.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            f'reading {prefix} takes TensorFlow ({error}); run `pip install tensorflow`, which nothing else needs'
        ) from error
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        types = reader.get_variable_to_dtype_map()
        return {name: reader.get_tensor(name) for name, kind in types.items() if kind.is_floating}
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        raise ModelError(
            f'{prefix}: is no whole TensorFlow checkpoint ({error}); its .index and .data files belong together'
        ) from error


def find_tensorflow(path: Path) -> Path | None:
    """Return the prefix of the TensorFlow checkpoint that the user means.

    Args:
        path: Its prefix, one of its files, or a folder that has one.

    Returns:
        The path without ``.index``, or None if there is none.

    Raises:
        UserError: The folder has several.

    """
    if path.is_dir():
        found = sorted(path.glob('*.index'))
        if len(found) > 1:
            names = ', '.join(file.stem for file in found)
            raise UserError(f'{path}: has several TensorFlow checkpoints ({names}); give one of them')
        return found[0].with_suffix('') if found else None
    for prefix in (path, path.with_name(TENSORFLOW_ENDING.sub('', path.name))):
        if prefix.with_name(f'{prefix.name}.index').is_file():
            return prefix
    return None


def convert(arguments: argparse.Namespace) -> int:
    """Convert as the command line asks and say what was written."""
    from moving_object_detector.networks.authors import from_pytorch, from_tensorflow, read_pytorch
    from moving_object_detector.networks.weights import FLOW_NETWORKS, build_network, check_tensors, save_network

    source: Path = arguments.input
    if arguments.output.suffix != '.safetensors':
        raise UserError(f'{arguments.output}: model files end in .safetensors; give such a name as second argument')
    prefix = find_tensorflow(source)
    if prefix is None and not source.is_file():
        raise UserError(
            f'{source}: no such checkpoint; give a .pth or .pth.tar file, or model.best where model.best.index is'
        )
    given: str | None = arguments.network
    if given is not None and (prefix is None) != (given in FLOW_NETWORKS):
        kind = 'PyTorch file' if prefix is None else 'TensorFlow checkpoint'
        raise UserError(
            f'{source}: is a {kind}; PWC-Net and RAFT-small are imported from PyTorch, '
            'generator and inpainter from TensorFlow'
        )
    if prefix is None:
        state = from_pytorch(read_pytorch(source), str(source))
        architecture = given or ('raft_small' if 'fnet.conv1.weight' in state else 'pwcnet')
    else:
        architecture = given or 'generator'
        state = from_tensorflow(read_tensorflow(prefix), architecture, str(prefix))
    form = {name: getattr(arguments, name) for name in ('flow_input', 'height', 'width')}
    if architecture in FLOW_NETWORKS and any(form.values()):
        raise UserError(f'--flow-input, --height and --width have no effect with {architecture}; leave them out')
    check_tensors(source, architecture, state)
    network = build_network(architecture, state)
    metadata = {'source': source.name}
    if architecture not in FLOW_NETWORKS:
        metadata |= {
            'flow_input': form['flow_input'] or 'normalised',
            'flow_backend': 'pwcnet',
            'height': str(form['height'] or 192),
            'width': str(form['width'] or 384),
        }
    save_network(network, arguments.output, metadata)
    count = sum(parameter.numel() for parameter in network.parameters())
    print(f'{arguments.output}: {architecture}, {count:,} parameters, {len(state)} tensors')
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(prog='convert_weights', description=__doc__)
    parser.add_argument(
        'input',
        metavar='INPUT',
        type=Path,
        help='pwc_net.pth.tar, raft-small.pth, or a TensorFlow checkpoint (prefix, file or folder)',
    )
    parser.add_argument('output', metavar='OUTPUT.safetensors', type=Path, help='model file to write')
    parser.add_argument(
        '--network',
        choices=('pwcnet', 'raft_small', 'generator', 'inpainter'),
        help='default: what a PyTorch file holds, or the generator of a TensorFlow checkpoint, which has both',
    )
    parser.add_argument(
        '--flow-input',
        choices=('normalised', 'residual'),
        help='form of flow that generator and inpainter were trained on (default: normalised, as released)',
    )
    parser.add_argument('--height', type=positive_int, help='of their input (default: 192)')
    parser.add_argument('--width', type=positive_int, help='of their input (default: 384)')
    arguments = parser.parse_args(argv)
    return run_program(lambda: convert(arguments))


if __name__ == '__main__':
    sys.exit(main())
