"""PWC-Net in mixed precision: features in bfloat16, flow in float32."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from moving_object_detector.networks.pwcnet import PWCNet

# bfloat16 has 8 bits: a flow of 40 pixels would come in steps of a quarter of a pixel.
FLOW_LAYERS = ('predict_flow', 'deconv', 'dc_conv7')

STILL = 0.01
"""Scale of new weights that give flow; as PWC-Net draws them the first flow is some 30 pixels of noise."""
LEAST_DEVIATION = 1e-3
"""A channel that is the same everywhere is not blown up."""


class TrainedPWCNet(PWCNet):
    """PWC-Net as it is trained; under autocast the layers that give flow compute in float32.

    Without autocast it is PWC-Net to the bit; parameters and their names are the same.
    """

    def _apply_layer(self, name: str, x: Tensor) -> Tensor:
        if not name.startswith(FLOW_LAYERS):
            return super()._apply_layer(name, x)
        with torch.autocast(x.device.type, enabled=False):
            return super()._apply_layer(name, x.float())

    def _dense(self, level: int, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            # Concatenated with float32 flow all of it has become float32, and would stay so through the decoder.
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return super()._dense(level, x)

    @torch.no_grad()
    def start(self, images: Tensor) -> None:
        """Prepare new weights for learning.

        On the images given each channel of the pyramid comes to have mean 0 and variance 1 before its activation
        (after Mishkin and Matas, ICLR 2016): as PWC-Net draws its weights, features are mostly the image's brightness,
        and the cost volume of level 2 tells no more of the motion than chance. The layers that give flow begin with
        nearly none, so that the first warps leave features where they are.

        Args:
            images: (B, 3, H, W), as :meth:`forward` takes them.

        """
        layers = [module for name, module in self.named_modules() if re.fullmatch(r'conv[1-6](a|aa|b)\.0', name)]
        hooks = [layer.register_forward_hook(_standardise) for layer in layers]
        self.pyramid(images)
        for hook in hooks:
            hook.remove()
        for name, parameter in self.named_parameters():
            if name.startswith(('predict_flow', 'dc_conv7')):
                parameter.mul_(STILL)

    def plain(self) -> PWCNet:
        """Return a PWC-Net with copies of these weights, on the CPU."""
        network = PWCNet()
        network.load_state_dict({name: tensor.detach().cpu() for name, tensor in self.state_dict().items()})
        return network


def _standardise(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Scale and shift a convolution by what it gave, and what it gave likewise."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    deviation, mean = torch.std_mean(output, (0, 2, 3))
    deviation = deviation.clamp_min(LEAST_DEVIATION)
    layer.weight.div_(deviation[:, None, None, None])
    layer.bias.copy_((layer.bias - mean) / deviation)
    return (output - mean[:, None, None]) / deviation[:, None, None]
