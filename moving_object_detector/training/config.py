"""The options of ``train`` and ``train flow`` and, here only, their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from moving_object_detector.common.errors import UserError, shown
from moving_object_detector.common.options import option
from moving_object_detector.detection.config import FlowConfig


@dataclass(frozen=True)
class DataConfig:
    """Footage to train on, and its flow cache."""

    root: str = option(
        '',
        'Footage, comma-separated: data sets (DAVIS 2016, SegTrackV2, FBMS-59), folders of frames or of such folders, '
        'videos or bags, each as PATH or PATH@SPLIT (default split: train). Empty: rendered scenes only.',
    )
    topic: str = option('', 'Image topic of bags; needed only if a bag has more than one.')
    cache: str = option('', 'Folder of the flow cache; empty: flow_cache in the output folder.')
    height: int = option(128, 'Height of cached images and flow, pixels.', low=16, high=2160)
    width: int = option(256, 'Width of cached images and flow, pixels.', low=16, high=4096)
    largest_gap: int = option(5, 'Frames from one image of a pair to the other, uniform in 1 to this.', low=1, high=20)


@dataclass(frozen=True)
class NetworkConfig:
    """The generator and its input."""

    height: int = option(96, "Height of the networks' input, multiple of 4.", low=32, high=2048)
    width: int = option(192, "Width of the networks' input, multiple of 4.", low=32, high=4096)
    flow_input: str = option(
        'residual',
        "residual: flow minus a robust fit of the camera's motion; geometric: that with per-pixel evidence against a "
        'rigid scene and forward-backward error; both_sides: geometric for an earlier and a later neighbour at once; '
        'normalised: zero mean and unit variance, as in the paper.',
        choices=('residual', 'geometric', 'both_sides', 'normalised'),
    )
    channels: int = option(32, 'Channels of the first layer, even; 16 take a third of the time of 32.', low=4, high=128)


@dataclass(frozen=True)
class RenderedConfig:
    """First stage: the generator on rendered scenes with exact masks."""

    steps: int = option(1100, 'Training steps; 0: skip this stage.', low=0, high=10**9)
    batch: int = option(10, 'Pairs per step.', low=1, high=4096)
    learning_rate: float = option(1e-3, 'Peak rate of AdamW: linear warm-up, then cosine decay.', low=1e-8, high=1)
    average: float = option(0.995, 'Decay of the moving average of the weights.', low=0, high=0.999999)
    flights: float = option(
        0.0, 'Share of pairs rendered as flights over standing objects; the others show flat sheets.', low=0, high=1
    )
    still_flights: float = option(0.33, 'Share of flights without a moving object.', low=0, high=1)
    followed: float = option(
        0.0, 'Share of sheet scenes, and of flights with a mover, in which the camera follows a mover.', low=0, high=1
    )
    kept: int = option(
        0,
        'Number of pairs to render once and store in the flow cache, at data.height x data.width; batches are drawn '
        'from them with random crops and mirroring. 0: render every pair anew.',
        low=0,
        high=10**7,
    )
    teacher: str = option(
        '',
        'Trained generator whose masks are a second target, weighted like the exact ones: .safetensors, or the '
        'package\'s "default" or "small". A one-sided one teaches both_sides only on pairs with one neighbour.',
    )


@dataclass(frozen=True)
class InpainterConfig:
    """Second stage: the inpainter alone, on random boxes cut out of the flow."""

    steps: int = option(600, 'Training steps; 0: skip this stage.', low=0, high=10**9)
    batch: int = option(16, 'Pairs per step.', low=1, high=4096)
    learning_rate: float = option(3e-4, 'Learning rate of Adam, constant.', low=1e-8, high=1)


@dataclass(frozen=True)
class GameConfig:
    """Third stage: generator against inpainter (equation 9 of the paper) on unlabelled video."""

    steps: int = option(600, 'Updates of generator and inpainter together; 0: skip this stage.', low=0, high=10**9)
    batch: int = option(16, 'Pairs per step.', low=1, high=4096)
    learning_rate: float = option(1e-4, 'Learning rate of Adam (beta1 0.9), constant.', low=1e-8, high=1)
    generator_steps: int = option(3, 'Generator updates after each inpainter update.', low=1, high=100)
    clip: float = option(0.2, 'Limit of gradients: clipped by value to plus and minus this.', low=1e-6, high=1e6)
    adversarial: float = option(1.0, "Weight of the adversarial loss in the generator's loss.", low=0, high=1e3)
    consistency: float = option(0.0, 'Weight of the loss against CRF masks of the initial generator.', low=0, high=1e3)
    average: float = option(0.99, 'Decay of the moving average of the weights.', low=0, high=0.999999)


@dataclass(frozen=True)
class TeacherConfig:
    """Last stage: the generator learns the masks of a slower, more accurate detector from the flow of flow.*."""

    steps: int = option(0, 'Training steps; 0: skip this stage.', low=0, high=10**9)
    batch: int = option(8, 'Pairs per step.', low=1, high=4096)
    learning_rate: float = option(3e-4, 'Peak rate of AdamW: linear warm-up, then cosine decay.', low=1e-8, high=1)
    average: float = option(0.99, 'Decay of the moving average of the weights.', low=0, high=0.999999)
    detector: str = option('config/accurate.yaml', "Parameter file of the teaching detector, the package's or yours.")
    rendered: float = option(
        0.5,
        'Share of rendered pairs (see rendered.*); on footage alone, the generator forgets to ignore static objects.',
        low=0,
        high=1,
    )


@dataclass(frozen=True)
class RunConfig:
    """Options that both trainings share."""

    seed: int = option(1, 'Random seed; the same seed gives the same weights on one machine.', low=0, high=2**31 - 1)
    device: str = option('auto', 'auto, cpu, cuda or cuda:N.')
    workers: int = option(1, 'Processes that prepare batches; 0: the training process itself.', low=0, high=256)
    threads: int = option(0, "CPU threads of PyTorch; 0: PyTorch's default.", low=0, high=256)
    precision: str = option('float32', 'bfloat16: mixed precision, flow in float32.', choices=('float32', 'bfloat16'))
    checkpoint_every: int = option(50, 'Steps between checkpoints.', low=1, high=10**9)
    picture_every: int = option(100, 'Steps between pictures.', low=1, high=10**9)


@dataclass(frozen=True)
class GameRunConfig(RunConfig):
    """Run options of ``train``."""

    candidates: int = option(5, 'Candidate models per stage (game, teacher), evenly spaced.', low=1, high=1000)


@dataclass(frozen=True)
class StartConfig:
    """Initial weights of ``train``."""

    model: str = option(
        '', 'Generator to start from, .safetensors, or the package\'s "default" or "small"; empty: random weights.'
    )
    inpainter: str = option('', 'Inpainter to start from, .safetensors, or "default"; empty: random weights.')


@dataclass(frozen=True)
class TrainConfig:
    """All options of ``train``."""

    name: str = option('generator', 'Name of the model file, without suffix.')
    data: DataConfig = field(default_factory=DataConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    start: StartConfig = field(default_factory=StartConfig)
    rendered: RenderedConfig = field(default_factory=RenderedConfig)
    inpainter: InpainterConfig = field(default_factory=InpainterConfig)
    game: GameConfig = field(default_factory=GameConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    run: GameRunConfig = field(default_factory=GameRunConfig)

    @property
    def inpainter_alone(self) -> bool:
        """Whether only the inpainter is trained, which without footage uses rendered scenes."""
        return bool(self.inpainter.steps) and not self.rendered.steps + self.game.steps + self.teacher.steps

    def __post_init__(self) -> None:
        height, width = self.network.height, self.network.width
        if height % 4 or width % 4:
            raise UserError(f'network.height and network.width are {height} and {width}, but take multiples of 4')
        if not self.name or Path(self.name).name != self.name:
            raise UserError(f'name is {shown(self.name)}, but takes a file name without folders; --out is the folder')
        if self.game.steps and not self.game.adversarial + self.game.consistency:
            raise UserError('game.adversarial and game.consistency are both 0; set one of them, or game.steps=0')


@dataclass(frozen=True)
class TrainingConfig:
    """Training on rendered pairs, whose flow is exact."""

    steps: int = option(2000, 'Training steps; 0: only measure start.model.', low=0, high=10**9)
    batch: int = option(8, 'Rendered pairs per step.', low=1, high=4096)
    learning_rate: float = option(4e-4, 'Peak rate of AdamW, at 5 % of the steps; linear cycle.', low=1e-8, high=1)
    matching: float = option(0.3, 'Initial weight of the feature matching loss; falls linearly to 0.', low=0, high=1e3)
    average: float = option(0.99, 'Decay of the moving average of the weights, the model.', low=0, high=0.999999)
    height: int = option(128, 'Height of the pairs, multiple of 64, pixels.', low=64, high=2048)
    width: int = option(192, 'Width of the pairs, multiple of 64, pixels.', low=64, high=4096)
    largest_gap: float = option(4.0, 'Largest time between the two images of a pair, frames.', low=0.3, high=20)
    pairs_per_scene: int = option(2, 'Pairs cut from one scene; more is faster, but less varied.', low=1, high=64)


@dataclass(frozen=True)
class ValidationConfig:
    """Data on which the end-point error is measured."""

    scenes: int = option(32, 'Number of held-out rendered pairs.', low=1, high=10**5)
    every: int = option(200, 'Steps between measurements on the held-out pairs.', low=1, high=10**9)
    folder: str = option('', 'Folder of pairs to measure at the end: folders of frame1.png, frame2.png and one .flo.')


@dataclass(frozen=True)
class FlowStartConfig:
    """Initial weights of ``train flow``."""

    model: str = option('', "PWC-Net to start from, .safetensors or its authors' file; empty: random weights.")


@dataclass(frozen=True)
class FlowTrainConfig:
    """All options of ``train flow``."""

    name: str = option('pwcnet', 'Name of the model file, without suffix.')
    start: FlowStartConfig = field(default_factory=FlowStartConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        height, width = self.training.height, self.training.width
        if height % 64 or width % 64:
            raise UserError(f'training.height and training.width are {height} and {width}, but take multiples of 64')
