"""From the flows of pairs to the masks that vote."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from moving_object_detector.detection.sign import resolve_sign
from moving_object_detector.detection.stage import Stage, unwatched
from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.engines.experimental_gpu import CudaGraphs
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.weights import FlowInput


class PairVotes:
    """Computes the masks of a batch of pairs; as one CUDA graph where the engine allows it.

    Args:
        engine: Runs the generator.
        flow_input: Form of flow that its weights expect.

    """

    def __init__(self, engine: MaskEngine, flow_input: FlowInput) -> None:
        self.engine = engine
        # No method of this object, which would keep itself, and the GPU's memory with it, alive.
        self._compute = partial(_compute, engine, flow_input)
        self._graphs = CudaGraphs(self._compute, engine.device) if engine.capturable else None

    def __call__(self, images: Tensor, flows: Tensor, stage: Stage) -> tuple[Tensor, Tensor]:
        """Return the mask of each pair, and how much moves on its own in its flow.

        Nothing in here waits for a GPU.

        Args:
            images: (B, 3, h, w), of the frames that are voted on, RGB in [-0.5, 0.5].
            flows: (B, 2, h, w), from these frames to their neighbours, pixels.
            stage: Called around ``generator input`` and ``generator``; around the latter alone where all is one graph.

        Returns:
            (B, h, w) in [0, 1], with the object's side resolved; and (B,), thousandths of the image width.

        """
        if self._graphs is None:
            return self._compute(images, flows, stage)
        with stage('generator'):
            masks, motion = self._graphs(images, flows)
            return masks, motion


def _compute(
    engine: MaskEngine, flow_input: FlowInput, images: Tensor, flows: Tensor, stage: Stage = unwatched
) -> tuple[Tensor, Tensor]:
    with stage('generator input'):
        prepared = prepare_flow(flows, flow_input)
    with stage('generator'):
        masks = resolve_sign(engine(images, prepared.flow))
    return masks[:, 0], prepared.motion
