"""Export the networks of a configuration to ONNX, for other runtimes than those of this package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from moving_object_detector.common.program import add_settings, run_program

if TYPE_CHECKING:
    from torch import Tensor, nn

    from moving_object_detector.detection.config import DetectorConfig

OPSET: Final = 18
TOLERANCE: Final = 1e-3
"""Largest difference to PyTorch, of masks in [0, 1] and of flow in pixels."""


class Export(NamedTuple):
    """One network and what its file says of it."""

    name: str
    module: nn.Module
    examples: tuple[Tensor, ...]
    """Two rows; the number of rows is left open."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: dict[str, str]


def exports(config: DetectorConfig) -> list[Export]:
    """Return the networks of a configuration: the generator, and both halves of PWC-Net where it computes the flow.

    Raises:
        UserError: An option or a model file is wrong.

    """
    import torch

    from moving_object_detector.detection.build import load_generator, require_flow_model
    from moving_object_detector.flow.pwcnet import LEVELS, PwcDecoder, PwcPyramid
    from moving_object_detector.networks.authors import load_flow_network
    from moving_object_detector.networks.pwcnet import MULTIPLE, PWCNet

    torch.manual_seed(0)
    generator, (height, width), flow_input = load_generator(config)
    found = [
        Export(
            'generator',
            generator.eval(),
            (torch.rand(2, 3, height, width) - 0.5, torch.randn(2, generator.flow_channels, height, width)),
            ('image', 'flow'),
            ('mask',),
            {
                'architecture': 'generator',
                'height': str(height),
                'width': str(width),
                'flow_input': flow_input,
                'flow_channels': str(generator.flow_channels),
                'image': 'RGB in [-0.5, 0.5]',
                'mask': 'probability of moving on its own, in [0, 1]',
            },
        )
    ]
    if config.flow.backend != 'pwcnet':
        return found
    network = load_flow_network(require_flow_model(config.flow), 'pwcnet')
    assert isinstance(network, PWCNet)
    height, width = (-(-length // MULTIPLE) * MULTIPLE for length in (config.flow.height, config.flow.width))
    images = torch.rand(2, 3, height, width), torch.rand(2, 3, height, width)
    pyramid = PwcPyramid(network).eval()
    with torch.no_grad():
        sources, targets = pyramid(images[0]), pyramid(images[1])
    names = {end: tuple(f'{end}{level}' for level in range(2, LEVELS + 2)) for end in ('level', 'source', 'target')}
    metadata = {'height': str(height), 'width': str(width)}
    return [
        *found,
        Export(
            'pwcnet_pyramid',
            pyramid,
            images[:1],
            ('image',),
            names['level'],
            {**metadata, 'architecture': 'pwcnet pyramid', 'image': 'BGR in [0, 1]'},
        ),
        Export(
            'pwcnet_decoder',
            PwcDecoder(network).eval(),
            (*sources, *targets),
            (*names['source'], *names['target']),
            ('flow',),
            {**metadata, 'architecture': 'pwcnet decoder', 'flow': 'a quarter of the size, in pixels of the full one'},
        ),
    ]


def write(export: Export, path: Path) -> None:
    """Write one network as ONNX.

    Raises:
        UserError: The file cannot be written.

    """
    import logging
    import warnings

    import torch

    from moving_object_detector import __version__
    from moving_object_detector.common.files import write_atomically

    batch = torch.export.Dim('batch', min=1, max=1024)
    shapes = tuple({0: batch} for _ in export.examples)
    # The halves of PWC-Net's decoder take their inputs as *levels, which torch.export sees as one argument.
    dynamic: Any = (shapes,) if export.name == 'pwcnet_decoder' else shapes
    # It speaks of torchvision, which is not needed, and of its own deprecated calls.
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.onnx.export(
            export.module,
            export.examples,
            input_names=list(export.inputs),
            output_names=list(export.outputs),
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            optimize=False,
        )
    assert program is not None
    model = program.model_proto
    for key, value in {**export.metadata, 'producer': f'moving_object_detector {__version__}'}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    write_atomically(path, model.SerializeToString())


def difference(export: Export, path: Path) -> float:
    """Return the largest difference between ONNX Runtime and PyTorch, of three rows and of one."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    worst = 0.0
    for rows in (3, 1):
        inputs = tuple(torch.cat((example, example.flip(0)))[:rows] for example in export.examples)
        with torch.no_grad():
            expected = export.module(*inputs)
        feeds = {name: tensor.numpy() for name, tensor in zip(export.inputs, inputs, strict=True)}
        found = session.run(None, feeds)
        pairs = zip(found, (expected,) if isinstance(expected, torch.Tensor) else expected, strict=True)
        worst = max(worst, *(float((torch.from_numpy(ours) - theirs).abs().max()) for ours, theirs in pairs))
    return worst


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``export_onnx``."""
    parser = argparse.ArgumentParser(prog='export_onnx', description=__doc__)
    parser.add_argument('out', metavar='FOLDER', type=Path, help='folder for the .onnx files')
    parser.add_argument('--config', type=Path, help="the node's parameter file, such as config/gpu.yaml")
    add_settings(parser, 'options, such as height=192')
    arguments = parser.parse_args(argv)

    def body() -> int:
        from importlib.util import find_spec

        from moving_object_detector.common.errors import UserError
        from moving_object_detector.common.parameter_files import load_config
        from moving_object_detector.detection.config import DetectorConfig

        missing = [package for package in ('onnx', 'onnxscript') if find_spec(package) is None]
        if missing:
            raise UserError(f'ONNX export needs {" and ".join(missing)}; pip install {" ".join(missing)}')
        config = load_config(DetectorConfig(), arguments.config, arguments.set)
        for export in exports(config):
            path = arguments.out / f'{export.name}.onnx'
            write(export, path)
            line = f'{path}: {path.stat().st_size / 1e6:.1f} MB, opset {OPSET}'
            if find_spec('onnxruntime') is None:
                sys.stdout.write(f'{line}; not checked: pip install onnxruntime\n')
                continue
            worst = difference(export, path)
            if worst > TOLERANCE:
                raise UserError(f'{path} differs from PyTorch by {worst:.2g}; please report this with your versions')
            sys.stdout.write(f'{line}, at most {worst:.1g} from PyTorch\n')
        return 0

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
