"""Options of ``train flow``: the single place where each default stands."""

from __future__ import annotations

from dataclasses import dataclass, field

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.options import option
from moving_object_detector.training.config import FootageConfig

MULTIPLE = 64


@dataclass(frozen=True)
class TrainingConfig:
    """Learning from rendered pairs, whose flow is exact and free."""

    steps: int = option(2000, 'Updates; 0: none, only measure start.model.', low=0, high=10**9)
    batch: int = option(8, 'Rendered pairs a step, all processes together.', low=1, high=4096)
    learning_rate: float = option(4e-4, 'Greatest rate of AdamW; one cycle, after 5 % of the steps.', low=1e-8, high=1)
    weight_decay: float = option(1e-4, 'Of AdamW.', low=0, high=1)
    clip: float = option(1.0, 'Norm to which the gradient is clipped.', low=1e-6, high=1e6)
    matching: float = option(
        0.3,
        'Weight, at the start, of the term that makes features of the same point alike; it falls evenly to 0.',
        low=0,
        high=1e3,
    )
    average: float = option(
        0.99, 'Decay of the moving average of the weights, which is the model.', low=0, high=0.999999
    )
    height: int = option(128, 'Height of the pairs, multiple of 64, pixels.', low=64, high=2048)
    width: int = option(192, 'Width of the pairs, multiple of 64, pixels.', low=64, high=4096)
    largest_gap: float = option(4.0, 'Most frames of scene time from one image to the other.', low=0.3, high=20)
    pairs_per_scene: int = option(
        2, 'Pairs cut from one rendering, forward and backward in turn; more is faster and less varied.', low=1, high=64
    )


@dataclass(frozen=True)
class VideoConfig(FootageConfig):
    """Learning from real video besides: from a teacher's flow, and from the images themselves."""

    cache: str = option('', "Folder for images and the teacher's flow; empty: 'flow_cache' in the output folder.")
    height: int = option(256, "Height of cached images and of the teacher's flow, pixels.", low=64, high=2160)
    width: int = option(448, "Width of cached images and of the teacher's flow, pixels.", low=64, high=4096)
    largest_gap: int = option(2, 'Frames between the two images of a pair, uniform in 1 to this.', low=1, high=20)
    least_crop: float = option(0.6, 'Least side of a random crop, as a share of the image.', low=0.2, high=1)
    batch: int = option(4, 'Real pairs a step, all processes together.', low=1, high=4096)
    teacher: str = option('raft_small', 'Whose flow is to be matched.', choices=('raft_small', 'dis'))
    teacher_model: str = option('', 'Weights of RAFT-small: .safetensors, or raft-small.pth of its authors.')
    distillation: float = option(1.0, "Weight of the end-point error to the teacher's flow.", low=0, high=1e3)
    census: float = option(
        0.0, 'Weight of the census distance between a frame and the other one warped onto it.', low=0, high=1e3
    )
    smoothness: float = option(
        0.1, 'Weight of the edge-aware smoothness that goes with the census, relative to it.', low=0, high=1e3
    )


@dataclass(frozen=True)
class ValidationConfig:
    """What the end-point error is measured on."""

    scenes: int = option(32, 'Rendered pairs that training never sees.', low=1, high=10**5)
    every: int = option(
        200, 'Steps between measurements on them; there is one at the end in any case.', low=1, high=10**9
    )
    folder: str = option(
        '', 'Folder of pairs, each a folder with frame1.png, frame2.png and one .flo; measured at the end.'
    )


@dataclass(frozen=True)
class RunConfig:
    """How a run runs."""

    seed: int = option(
        1, 'Decides all that is random; the same seed gives the same weights on the same machine.', low=0
    )
    device: str = option('auto', 'auto, cpu, cuda or cuda:N.')
    threads: int = option(0, 'CPU threads of PyTorch; 0: its own choice.', low=0, high=256)
    workers: int = option(1, 'Processes that render; 0: the training process itself.', low=0, high=256)
    precision: str = option(
        'float32', 'bfloat16: mixed precision, with the flow itself in float32.', choices=('float32', 'bfloat16')
    )
    checkpoint_every: int = option(50, 'Steps between checkpoints.', low=1, high=10**9)
    picture_every: int = option(100, 'Steps between pictures.', low=1, high=10**9)


@dataclass(frozen=True)
class StartConfig:
    """What a run starts from."""

    model: str = option(
        '', 'PWC-Net to start from: .safetensors, or the PyTorch file of its authors; empty: random weights.'
    )


@dataclass(frozen=True)
class FlowTrainConfig:
    """All options of ``train flow``."""

    name: str = option('pwcnet', 'Name of the model file that the run leaves.')
    start: StartConfig = field(default_factory=StartConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        """Check what no single option's range says."""
        height, width = self.training.height, self.training.width
        if height % MULTIPLE or width % MULTIPLE:
            raise UserError(
                f'training.height and training.width are {height} and {width}, but take multiples of {MULTIPLE}'
            )
