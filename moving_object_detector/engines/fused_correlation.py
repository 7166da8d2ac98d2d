"""PWC-Net with warp and cost volume by one Triton kernel, where that works."""

from __future__ import annotations

import copy
import logging
from importlib.util import find_spec

import torch

from moving_object_detector.engines.base import Engine
from moving_object_detector.networks.pwcnet import PWCNet, padded

_log = logging.getLogger(__name__)


def fuse_correlation(network: PWCNet, engine: Engine, size: tuple[int, int]) -> PWCNet:
    """Return the network as the engine is fastest with it; the log says which that is.

    The kernel is compiled here, which takes some seconds the first time and is kept in Triton's cache. Triton needs a C
    compiler for that.

    Args:
        network: With its weights loaded; stays as it is.
        engine: Runs modules as they are, that is ``torch``.
        size: (height, width) of the images, rounded up to multiples of 64.

    Returns:
        A copy that uses the kernel, for inference alone; the network itself where Triton is not installed or fails.

    """
    if find_spec('triton') is None:
        _log.info('PWC-Net: warp and cost volume by PyTorch; Triton, which is faster, is not installed')
        return network
    fused = copy.deepcopy(network)
    try:
        from moving_object_detector.engines.correlation_kernel import correlate

        fused.correlate = correlate
        image = torch.zeros(1, 3, *padded(size))
        run = engine.load(fused, (image, image), 'PWC-Net')
        image = image.to(engine.device)
        # Fetched, since a GPU says only then what went wrong.
        run(image, image)[0].cpu()
    except Exception as error:  # noqa: BLE001 - a compiler and a driver fail in any way, and PyTorch does as well
        reason = str(error).strip().partition('\n')[0]
        _log.warning('PWC-Net: warp and cost volume by PyTorch; Triton fails: %s: %s', type(error).__name__, reason)
        return network
    _log.info('PWC-Net: warp and cost volume by one Triton kernel')
    return fused
