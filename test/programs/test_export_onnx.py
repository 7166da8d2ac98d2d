from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.networks.weights import save_network
from moving_object_detector.programs.commands import export_onnx as main

missing = [package for package in ('onnx', 'onnxscript', 'onnxruntime') if find_spec(package) is None]
needs_onnx = pytest.mark.skipif(bool(missing), reason=f'not installed here: {", ".join(missing)}')


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Random weights with masks from near 0 to near 1 and a flow of some pixels, as options."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp('weights')
    generator, network = Generator(), PWCNet()
    with torch.no_grad():
        generator.conv17.gamma.fill_(30.0)
        for name, parameter in network.named_parameters():
            if name.startswith(('predict_flow', 'dc_conv7')):
                parameter.mul_(0.2)
    metadata = {'flow_input': 'residual', 'flow_backend': 'pwcnet', 'height': '32', 'width': '64'}
    save_network(generator, folder / 'generator.safetensors', metadata)
    save_network(network, folder / 'pwcnet.safetensors', {})
    return [f'model={folder}/generator.safetensors', f'flow.model={folder}/pwcnet.safetensors']


@needs_onnx
def test_the_files_compute_masks_and_flow_without_this_package(weights, tmp_path, capsys):
    """Images to flow to masks by ONNX Runtime alone, as somebody elsewhere would."""
    import onnx
    import onnxruntime

    options = [*weights, 'flow.backend=pwcnet', 'flow.height=64', 'flow.width=128']
    assert main([str(tmp_path), '--set', *options]) == 0
    out = capsys.readouterr().out
    assert out.count('opset 18, differs from PyTorch by at most ') == 3
    models = {name: tmp_path / f'{name}.onnx' for name in ('generator', 'pwcnet_pyramid', 'pwcnet_decoder')}
    metadata = {
        name: {entry.key: entry.value for entry in onnx.load(path).metadata_props} for name, path in models.items()
    }
    assert metadata['generator']['flow_input'] == 'residual'
    assert (metadata['generator']['height'], metadata['generator']['width']) == ('32', '64')
    assert metadata['pwcnet_pyramid']['image'] == 'BGR in [0, 1]'
    assert (metadata['pwcnet_decoder']['height'], metadata['pwcnet_decoder']['width']) == ('64', '128')
    assert {entry.version for entry in onnx.load(models['generator']).opset_import if not entry.domain} == {18}

    sessions = {name: onnxruntime.InferenceSession(path) for name, path in models.items()}
    rng = np.random.default_rng(1)
    first, second = rng.random((2, 5, 3, 64, 128), np.float32)
    sources, targets = (sessions['pwcnet_pyramid'].run(None, {'image': images}) for images in (first, second))
    names = [port.name for port in sessions['pwcnet_decoder'].get_inputs()]
    assert names == [f'{end}{level}' for end in ('source', 'target') for level in range(2, 7)]
    (flow,) = sessions['pwcnet_decoder'].run(None, dict(zip(names, [*sources, *targets], strict=True)))
    network = PWCNet().eval()
    from moving_object_detector.networks.weights import load_weights

    network.load_state_dict(load_weights(weights[1].partition('=')[2], 'pwcnet')[0])
    with torch.no_grad():
        expected = network(torch.from_numpy(first), torch.from_numpy(second)) * 20
    assert expected.std() > 1
    np.testing.assert_allclose(flow, expected.numpy(), atol=1e-3)

    image, prepared = rng.random((7, 3, 32, 64), np.float32) - 0.5, rng.standard_normal((7, 2, 32, 64), np.float32)
    (mask,) = sessions['generator'].run(['mask'], {'image': image, 'flow': prepared})
    generator = Generator().eval()
    generator.load_state_dict(load_weights(weights[0].partition('=')[2])[0])
    with torch.no_grad():
        expected = generator(torch.from_numpy(image), torch.from_numpy(prepared))
    assert mask.shape == (7, 1, 32, 64)
    np.testing.assert_allclose(mask, expected.numpy(), atol=1e-4)


@needs_onnx
def test_a_generator_with_evidence_behind_the_flow(tmp_path, capsys):
    import onnxruntime

    torch.manual_seed(5)
    generator = Generator(8).eval()
    metadata = {'flow_input': 'geometric', 'flow_backend': 'raft_small', 'height': '32', 'width': '64'}
    save_network(generator, tmp_path / 'eight.safetensors', metadata)
    assert main([str(tmp_path), '--set', f'model={tmp_path}/eight.safetensors']) == 0
    session = onnxruntime.InferenceSession(tmp_path / 'generator.onnx')
    assert session.get_modelmeta().custom_metadata_map['flow_channels'] == '8'
    image, flow = torch.rand(3, 3, 32, 64) - 0.5, torch.randn(3, 8, 32, 64)
    (mask,) = session.run(['mask'], {'image': image.numpy(), 'flow': flow.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(mask, generator(image, flow).numpy(), atol=1e-4)


def test_mistakes_are_told(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    assert main([str(tmp_path)]) == 2
    assert 'ONNX export needs' in capsys.readouterr().err


@needs_onnx
def test_pwcnet_needs_weights(weights, tmp_path, capsys):
    assert main([str(tmp_path), '--set', weights[0], 'flow.backend=pwcnet']) == 2
    assert 'get_weights pwcnet' in capsys.readouterr().err
