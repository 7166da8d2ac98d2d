import pytest
import torch
from torch.nn import functional

from moving_object_detector.networks.pwcnet import PWCNet, cost_volume
from moving_object_detector.training.flow_pairs import FlowPairOptions, RenderedFlowPairs
from moving_object_detector.training.flow_training import TrainedPWCNet, multiplied_cost_volume, network_input


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(4)
    return TrainedPWCNet()


@pytest.fixture(scope='module')
def images():
    return torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_in_full_precision_it_is_pwcnet(network, images):
    plain = PWCNet()
    plain.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(plain(*images), network(*images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('shape', [(2, 5, 7, 6), (1, 8, 3, 12)])
def test_the_cost_volume_by_products_is_the_cost_volume(shape):
    a, b = (torch.randn(shape, requires_grad=True) for _ in range(2))
    plain, multiplied = cost_volume(a, b), multiplied_cost_volume(a, b)
    torch.testing.assert_close(multiplied, plain)
    weights = torch.randn_like(plain)
    for ours, theirs in zip(
        torch.autograd.grad(multiplied, (a, b), weights), torch.autograd.grad(plain, (a, b), weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_in_mixed_precision_only_the_flow_is_in_full(network, images):
    """Every flow is float32, every feature bfloat16, and the result is near that of full precision."""
    seen = {}
    hooks = [
        module.register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({name: (inputs[0].dtype, output.dtype)})
        )
        for name, module in network.named_children()
        if name != 'deconv2'
    ]
    with torch.autocast('cpu', torch.bfloat16):
        levels = network.decode_levels(network.pyramid(images[0]), network.pyramid(images[1]))
    for hook in hooks:
        hook.remove()
    assert all(level.dtype == torch.float32 for level in levels)
    for name, (given, made) in seen.items():
        flow = name.startswith(('predict_flow', 'deconv')) or name == 'dc_conv7'
        assert made == (torch.float32 if flow else torch.bfloat16), name
        # The first layer gets the image as it is.
        assert given == made or name == 'conv1a', name
    levels[0].square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    with torch.no_grad():
        exact = network(*images)
        assert float((levels[0] - exact).norm() / exact.norm()) < 0.1


def test_new_weights_are_scaled_to_the_scenes():
    """Every channel is standardised before its activation, there is nearly no flow, and matching beats chance."""
    pairs = RenderedFlowPairs(5, FlowPairOptions((64, 128), photometric=False))
    batch = [pairs[2 * number] for number in range(6)]
    first, second = (network_input(torch.stack([pair[place] for pair in batch])) for place in (0, 1))
    truth = functional.adaptive_avg_pool2d(torch.stack([pair.flow for pair in batch]), (16, 32)) / 4
    torch.manual_seed(4)
    network = TrainedPWCNet()
    before = 20 * float(network(first, second).detach().norm(dim=1).mean())
    drawn = rank_of_truth(network, first, second, truth)
    network.start(torch.cat((first, second)))
    given = {}
    for name, module in network.named_children():
        if isinstance(module, torch.nn.Sequential):
            module[0].register_forward_hook(lambda _, __, output, name=name: given.update({name: output}))
    with torch.no_grad():
        pyramid = network.pyramid(torch.cat((first, second)))
        halves = [level.chunk(2) for level in pyramid]
        levels = network.decode_levels([half[0] for half in halves], [half[1] for half in halves])
    pyramid_layers = [output for name, output in given.items() if name[-1] in 'ab']
    assert len(pyramid_layers) == 18
    for output in pyramid_layers:
        deviation, mean = torch.std_mean(output, (0, 2, 3))
        assert float(mean.abs().max()) < 1e-3
        assert float((deviation - 1).abs().max()) < 1e-2
    after = max(20 * float(level.norm(dim=1).mean()) for level in levels)
    started = rank_of_truth(network, first, second, truth)
    print(f'flow {before:.1f} px, started {after:.2f} px; rank of the true displacement {drawn:.2f}, {started:.2f}')
    assert after < 1 < before
    assert started < 0.75 * drawn


def rank_of_truth(network, first, second, truth):
    """Return which share of the 81 displacements of level 2 looks better than the true one; 0.5 is chance."""
    with torch.no_grad():
        cost = cost_volume(network.pyramid(first)[1], network.pyramid(second)[1])
    moved = truth.round()
    channel = (moved[:, 1] + 4) * 9 + moved[:, 0] + 4
    counts = (moved.abs() <= 4).all(1) & (moved != 0).any(1)
    true = cost.gather(1, channel.long().clamp(0, 80)[:, None])
    return float((cost > true).float().mean(1)[counts].mean())
