"""The flow inpainter of "Unsupervised Moving Object Detection via Contextual Information Separation"."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from moving_object_detector.networks.generator import SameConv2d

LEAKY_SLOPE: Final = 0.2
# Name, output channels, kernel, stride: both encoders are built from this one table.
ENCODER: Final = (
    ('conv1', 16, 7, 2),
    ('conv2', 32, 5, 2),
    ('conv3', 64, 5, 2),
    ('conv31', 64, 3, 1),
    ('conv4', 128, 3, 2),
    ('conv41', 128, 3, 1),
    ('conv5', 128, 3, 2),
    ('conv51', 128, 3, 1),
    ('conv6', 128, 3, 2),
)
# Scale, encoder layer of that size, output channels of the deconvolution, kernel of the flow prediction.
DECODER: Final = ((4, 'conv41', 128, 3), (3, 'conv31', 64, 3), (2, 'conv2', 32, 3), (1, 'conv1', 16, 5))


def resize_bilinear_tf1(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, H, W) bilinearly to (height, width) as TensorFlow 1 does, without a half-pixel shift."""
    if x.shape[-2:] == size:
        return x
    height, width = size
    # With one more row and column PyTorch's aligned corners have TensorFlow's step.
    padded = functional.pad(x, (0, 1, 0, 1), mode='replicate')
    grown = functional.interpolate(padded, (height + 1, width + 1), mode='bilinear', align_corners=True)
    return grown[..., :height, :width]


class Inpainter(nn.Module):
    """Predicts the flow under a mask from the flow around it and the image: ``phi(chi, u_out, I)``.

    3,388,610 parameters. Layers are named as in the released code: ``aconv*`` encode the image, ``bconv*`` the flow;
    the number is the scale (5 is 1/32 of the input).
    """

    def __init__(self) -> None:
        super().__init__()
        for encoder, channels in (('a', 3), ('b', 4)):
            inputs = channels
            for name, outputs, kernel, stride in ENCODER:
                self.add_module(encoder + name, SameConv2d(inputs, outputs, kernel, stride))
                inputs = outputs
        self.deconv5 = SameConv2d(256, 128, 4)
        self.flow5 = SameConv2d(384, 2, 3)
        inputs = 384
        for scale, _, outputs, kernel in DECODER:
            self.add_module(f'deconv{scale}', SameConv2d(inputs, outputs, 4))
            self.add_module(f'upflow{scale}', SameConv2d(2, 2, 4))
            # Channels of the deconvolution, of both encoders and of the coarser flow.
            inputs = 3 * outputs + 2
            self.add_module(f'flow{scale}', SameConv2d(inputs, 2, kernel))

    def _encode(self, encoder: str, x: Tensor) -> dict[str, Tensor]:
        features = {}
        for name, *_ in ENCODER:
            x = functional.leaky_relu(self.get_submodule(encoder + name)(x), LEAKY_SLOPE)
            features[name] = x
        return features

    def forward(self, image: Tensor, masked_flow: Tensor, mask: Tensor) -> Tensor:
        """Return the flow everywhere, (B, 2, H, W), guessed from what ``masked_flow`` shows and in its units.

        ``image`` is (B, 3, H, W), RGB in [-0.5, 0.5], of any H and W; ``masked_flow`` (B, 2, H, W), the flow divided by
        the trainer's constant, zero under the mask; ``mask`` (B, 1, H, W) in [0, 1], 1 where the flow is hidden.
        """
        a = self._encode('a', image)
        b = self._encode('b', torch.cat((masked_flow, torch.ones_like(mask), 1.0 - mask), 1))

        x = torch.cat((a['conv6'], b['conv6']), 1)
        x = torch.cat((_up(self.deconv5, x, b['conv51']), b['conv51'], a['conv51']), 1)
        flow = self.flow5(x)
        for scale, name, *_ in DECODER:
            deconv, upflow, predict = (self.get_submodule(f'{kind}{scale}') for kind in ('deconv', 'upflow', 'flow'))
            coarse = upflow(resize_bilinear_tf1(flow, _size(b[name])))
            x = torch.cat((_up(deconv, x, b[name]), b[name], a[name], coarse), 1)
            flow = predict(x)
        return resize_bilinear_tf1(flow, _size(image))


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]


def _up(deconv: nn.Module, x: Tensor, like: Tensor) -> Tensor:
    return functional.leaky_relu(deconv(resize_bilinear_tf1(x, _size(like))), LEAKY_SLOPE)
