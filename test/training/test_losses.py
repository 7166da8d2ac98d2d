from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moving_object_detector.flow.base import motion_units
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.training import losses
from moving_object_detector.training.game import guess, revive
from moving_object_detector.training.losses import Guesses

EPSILON = 75 / (192 * 384)  # of the released code, which sums over 192 x 384 pixels


def field(*pixels):
    """A (1, 2, 1, n) flow field of the pixels' (u, v)."""
    return torch.tensor(pixels, dtype=torch.float32).T[None, :, None, :].clone()


def weights(*pixels):
    return torch.tensor(pixels, dtype=torch.float32)[None, None, None, :].clone()


def length(u, v):
    """What the released code makes of a difference."""
    return math.sqrt(u * u + 1e-6) + math.sqrt(v * v + 1e-6)


def test_motion_units_do_not_depend_on_the_size():
    """The released code divides by 80 pixels of its 640 x 384 input: 40 and 16 of those are 0.5 and 0.2."""
    for height, width in ((384, 640), (96, 192), (100, 80)):
        flow = torch.zeros(2, 2, height, width)
        flow[:, 0], flow[:, 1] = 40 * width / 640, 16 * height / 384
        units = motion_units(flow)
        assert torch.allclose(units[:, 0], torch.tensor(0.5))
        assert torch.allclose(units[:, 1], torch.tensor(0.2))


def test_norms_by_hand():
    difference = field((3, -4), (0, 0))
    assert losses.charbonnier(difference).flatten().tolist() == pytest.approx([length(3, 4), 0.002], rel=1e-5)
    assert losses.charbonnier(difference).shape == (1, 1, 1, 2)


# The object is the left pixel, and moves by (3, 4) before a background that moves by (1, 0).
FLOW = field((3, 4), (1, 0))
MASK = weights(1, 0)
GUESSES = Guesses(inside=field((3, 1), (9, 9)), outside=field((9, 9), (1, 0.5)), alone=field((2, 4), (0, 2)))


def test_the_released_codes_terms_by_hand():
    """Measured against the guess from the image alone, which misses (1, 0) inside and (1, -2) outside."""
    inside, outside = losses.region_errors(FLOW, MASK, GUESSES)
    assert inside.tolist() == pytest.approx([(length(0, 3) / 2) / (length(1, 0) / 2 + EPSILON)], rel=1e-5)
    assert outside.tolist() == pytest.approx([(length(0, 0.5) / 2) / (length(1, 2) / 2 + EPSILON)], rel=1e-5)
    assert losses.generator_loss(FLOW, MASK, GUESSES).item() == pytest.approx(
        2 - inside.item() - outside.item(), rel=1e-5
    )
    total = length(0, 3) + length(0, 0.5) + length(1, 0) + length(1, 2)
    assert losses.inpainter_loss(FLOW, MASK, GUESSES).item() == pytest.approx(total / 2, rel=1e-5)


def naive_terms(flow, mask, guesses):
    """Equation 9 pixel by pixel, in sums as the paper has them, for one sample: (inside, outside)."""
    _, height, width = flow.shape
    epsilon = 75 * height * width / (192 * 384)
    terms = []
    for weight, guessed in ((mask, guesses[0]), (1 - mask, guesses[1])):
        error = known = 0.0
        for y in range(height):
            for x in range(width):
                w = float(weight[0, y, x])
                du, dv = (float(flow[c, y, x]) - float(guessed[c, y, x]) for c in (0, 1))
                au, av = (float(flow[c, y, x]) - float(guesses[2][c, y, x]) for c in (0, 1))
                error += w * length(du, dv)
                known += w * length(au, av)
        terms.append(error / (known + epsilon))
    return terms


@pytest.fixture
def batch():
    """Three samples of 5 x 7 pixels with soft masks."""
    generator = torch.Generator().manual_seed(6)
    flow, *guessed = (torch.randn(3, 2, 5, 7, generator=generator) for _ in range(4))
    return flow, torch.rand(3, 1, 5, 7, generator=generator), Guesses(*guessed)


def test_soft_masks_against_a_second_implementation(batch):
    flow, mask, guesses = batch
    expected = [naive_terms(flow[k].numpy(), mask[k].numpy(), [g[k].numpy() for g in guesses]) for k in range(3)]
    inside, outside = losses.region_errors(flow, mask, guesses)
    assert inside.tolist() == pytest.approx([terms[0] for terms in expected], rel=1e-4)
    assert outside.tolist() == pytest.approx([terms[1] for terms in expected], rel=1e-4)
    mean = np.mean([2 - sum(terms) for terms in expected])
    assert losses.generator_loss(flow, mask, guesses).item() == pytest.approx(mean, rel=1e-4)


def test_the_inpainters_loss_in_the_released_code_against_a_second_implementation(batch):
    flow, mask, guesses = batch
    total = 0.0
    for k, y, x in np.ndindex(3, 5, 7):
        w = float(mask[k, 0, y, x])
        for weight, guessed in ((w, guesses.inside), (1 - w, guesses.outside), (1, guesses.alone)):
            total += weight * length(*(float(flow[k, c, y, x] - guessed[k, c, y, x]) for c in (0, 1)))
    assert losses.inpainter_loss(flow, mask, guesses).item() == pytest.approx(total / (3 * 5 * 7), rel=1e-5)


@pytest.mark.parametrize('value', [0.0, 1.0])
def test_a_mask_of_all_or_nothing(batch, value):
    """The side that has no pixels costs nothing, and no gradient is lost in a division by zero."""
    flow, _, guesses = batch
    mask = torch.full((3, 1, 5, 7), value, requires_grad=True)
    terms = losses.region_errors(flow, mask, guesses)
    assert terms[0 if value == 0 else 1].tolist() == [0, 0, 0]
    assert all(term > 0.1 for term in terms[1 if value == 0 else 0])
    losses.generator_loss(flow, mask, guesses).backward()
    assert mask.grad.isfinite().all()


def test_still_scenes_have_finite_losses_and_gradients():
    flow, nothing = torch.zeros(2, 2, 4, 4), torch.zeros(2, 2, 4, 4)
    mask = torch.full((2, 1, 4, 4), 0.3, requires_grad=True)
    guessed = nothing.clone().requires_grad_()
    loss = losses.generator_loss(flow, mask, Guesses(guessed, guessed, guessed))
    loss.backward()
    assert loss.isfinite()
    assert mask.grad.isfinite().all()
    assert guessed.grad.isfinite().all()


def constant_guesses(flow, mask):
    """The best inpainter for regions of constant flow: each side's mean."""

    def mean(weight):
        return ((flow * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True)).expand_as(flow)

    return Guesses(mean(1 - mask), mean(mask), torch.zeros_like(flow))


@pytest.fixture
def two_motions():
    """A background of flow (1, 0) and an object of flow (0, 1); the true mask."""
    truth = torch.zeros(1, 1, 12, 16)
    truth[..., 3:8, 4:11] = 1
    return torch.cat((1 - truth, truth), 1), truth


def test_the_true_object_is_the_generators_best_mask(two_motions):
    flow, truth = two_motions

    def loss(mask):
        return losses.generator_loss(flow, mask, constant_guesses(flow, mask)).item()

    sharper = [loss(0.5 + share * (truth - 0.5)) for share in (0, 0.25, 0.5, 0.75, 0.999)]
    assert sharper == sorted(sharper, reverse=True)
    assert len(set(sharper)) == 5
    shifted = [loss((0.001 + 0.998 * truth).roll(step, 3)) for step in (5, 4, 3, 2, 1, 0)]
    assert shifted == sorted(shifted, reverse=True)
    # Mask and complement are equally good: the sign is arbitrary.
    assert loss(0.001 + 0.998 * truth) == pytest.approx(loss(0.999 - 0.998 * truth), abs=1e-4)


def test_the_gradient_points_to_the_object_pixel_by_pixel(two_motions):
    """With a perfect inpainter, the mask grows where the object is and shrinks elsewhere."""
    flow, truth = two_motions
    mask = (0.4 + 0.2 * truth).requires_grad_()
    perfect = Guesses(flow.new_tensor((1, 0))[:, None, None], flow.new_tensor((0, 1))[:, None, None], 0 * flow)
    losses.generator_loss(flow, mask, perfect).backward()
    assert (mask.grad[truth > 0] < 0).all()
    assert (mask.grad[truth == 0] > 0).all()


def test_the_inpainters_gradient_points_to_the_flow(batch):
    flow, mask, guesses = batch
    guessed = [item.clone().requires_grad_() for item in guesses]
    losses.inpainter_loss(flow, mask, Guesses(*guessed)).backward()
    for item in guessed:
        assert (item.grad * (item.detach() - flow) > 0).all()


def test_boxes_by_hand():
    """One of two pixels is masked, and missed by (1, -2); what the guess says elsewhere is free."""
    assert losses.box_loss(FLOW, weights(0, 1), field((50, 50), (0, 2))).item() == pytest.approx(length(1, 2), rel=1e-5)
    assert losses.box_loss(FLOW, weights(0, 0), FLOW + 1).item() == 0


def test_mask_loss_by_hand():
    """Entropy log 2; Dice 1 - (2 x 1 + 1) / (2 + 2 + 1)."""
    half, mask = weights(0.0, 0.0, 0.0, 0.0), weights(1, 1, 0, 0)
    sure = 30 * (2 * mask - 1)
    assert losses.mask_loss(half, mask).item() == pytest.approx(math.log(2) + 1 - 3 / 5)
    assert losses.mask_loss(sure, mask).item() == pytest.approx(0, abs=1e-4)
    assert losses.mask_loss(0 * mask - 30, 0 * mask).item() == pytest.approx(0, abs=1e-4)
    assert losses.mask_loss(-sure, mask).item() > 10


def test_small_objects_weigh_more_by_hand():
    mask = torch.zeros(2, 1, 40, 50)
    mask[0, 0, 5:10, 4:7] = 1  # 15 of 2000 pixels; the full share is 60
    mask[0, 0, 20:32, 20:40] = 1
    mask[0, 0, 38, 48] = 1  # root of 60, which is too much
    weights = losses.object_weights(mask)
    expected = torch.ones(2, 1, 40, 50)
    expected[0, 0, 2:13, 1:10] = 2
    expected[0, 0, 35:, 45:] = 4
    assert torch.equal(weights, expected)


def test_a_missed_small_object_costs_more_with_weights():
    mask = torch.zeros(1, 1, 40, 50)
    mask[0, 0, 5:10, 4:7] = mask[0, 0, 20:32, 20:40] = 1
    missed = mask.clone()
    missed[0, 0, 5:10, 4:7] = 0
    all_found, one_missed = (20 * found - 10 for found in (mask, missed))
    rises = [losses.mask_loss(one_missed, mask, weights) - losses.mask_loss(all_found, mask, weights)
             for weights in (None, losses.object_weights(mask))]  # fmt: skip
    assert rises[1] > 1.5 * rises[0] > 0


def test_what_is_surely_wrong_is_pulled_back_with_full_weight():
    """However sure a mask is, and however probabilities are rounded, the gradient is 1 for each wrong pixel."""
    mask = weights(1, 1, 0, 0)
    for size in (5.0, 20.0, 500.0):
        wrong = (size * (1 - 2 * mask)).requires_grad_()
        losses.mask_loss(wrong, mask).backward()
        entropy = 4 * wrong.grad.flatten()
        assert torch.allclose(entropy, torch.tensor([-1.0, -1.0, 1.0, 1.0]), atol=0.05)


@pytest.fixture(scope='module')
def inpainter():
    torch.manual_seed(5)
    return Inpainter().eval()


def test_no_guess_sees_the_flow_that_it_is_to_guess(inpainter):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, 32, 64, generator=generator) - 0.5
    flow, other = (torch.randn(2, 2, 32, 64, generator=generator) for _ in range(2))
    mask = torch.zeros(2, 1, 32, 64)
    mask[..., 8:20, 16:40] = 1
    with torch.inference_mode():
        first = guess(inpainter, image, flow, mask)
        changed_inside = guess(inpainter, image, torch.where(mask > 0, other, flow), mask)
        changed_outside = guess(inpainter, image, torch.where(mask > 0, flow, other), mask)
        swapped = guess(inpainter, image, flow, 1 - mask)
        alone = inpainter(image, torch.zeros_like(flow), torch.ones_like(mask))
    assert torch.equal(first.inside, changed_inside.inside)
    assert not torch.allclose(first.inside, changed_outside.inside)
    assert torch.equal(first.outside, changed_outside.outside)
    assert not torch.allclose(first.outside, changed_inside.outside)
    for others in (changed_inside, changed_outside):
        assert torch.equal(first.alone, others.alone)
    assert torch.allclose(first.alone, alone, atol=1e-5)
    assert torch.allclose(swapped.inside, first.outside, atol=1e-5)


def parameters_with_gradient(value):
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2,))]
    for parameter in parameters[:2]:
        parameter.grad = torch.full_like(parameter, value)
    return parameters


def test_a_collapsed_generator_is_shaken_by_positive_noise():
    parameters = parameters_with_gradient(-0.9e-5)
    assert revive(parameters, 0.2, (1, 7))
    noise = torch.cat([parameter.grad.flatten() for parameter in parameters[:2]])
    assert 0 <= noise.min() < 0.1 < noise.max() <= 0.2
    assert len(noise.unique()) == 17
    assert parameters[2].grad is None
    again = parameters_with_gradient(0.0)
    assert revive(again, 0.2, (1, 7))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(parameters[:2], again[:2], strict=True))
    other = parameters_with_gradient(0.0)
    revive(other, 0.2, (1, 8))
    assert not torch.equal(other[0].grad, again[0].grad)


def test_a_living_generator_is_left_alone():
    parameters = parameters_with_gradient(-1.1e-5)
    assert not revive(parameters, 0.2, (1, 7))
    assert all((parameter.grad == -1.1e-5).all() for parameter in parameters[:2])
    # The mean over all gradients decides: one that is alive is enough.
    parameters = parameters_with_gradient(0.0)
    parameters[1].grad[0] = 0.01
    assert not revive(parameters, 0.2, (1, 7))
    assert not parameters[0].grad.any()
