"""Options of ``train`` and ``train flow``: the single place where each default stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from moving_object_detector.common.errors import UserError, shown
from moving_object_detector.common.options import option
from moving_object_detector.detection.config import FlowConfig


@dataclass(frozen=True)
class DataConfig:
    """What video is learnt from."""

    root: str = option(
        '',
        'Data sets (DAVIS 2016, SegTrackV2, FBMS-59), folders of frames or of such folders, videos, bags, separated by '
        'commas, each PATH or PATH@SPLIT (else train). Empty: rendered scenes only.',
    )
    topic: str = option('', 'Image topic of a bag; not needed when it has exactly one.')
    cache: str = option('', "Folder for the flow cache; empty: 'flow_cache' in the output folder.")
    height: int = option(128, 'Height of cached images and flow, pixels.', low=16, high=2160)
    width: int = option(256, 'Width of cached images and flow, pixels.', low=16, high=4096)
    largest_gap: int = option(5, 'Frames between the two images of a pair, uniform in 1 to this.', low=1, high=20)


@dataclass(frozen=True)
class NetworkConfig:
    """The generator and its input."""

    height: int = option(96, "Height of the networks' input, multiple of 4.", low=32, high=2048)
    width: int = option(192, "Width of the networks' input, multiple of 4.", low=32, high=4096)
    flow_input: str = option(
        'residual',
        "residual: flow without a robust fit of the camera's motion; geometric: with what a rigid scene and the "
        'reversed flow say of each pixel; both_sides: that of an earlier and a later neighbour at once; normalised: '
        "the paper's.",
        choices=('residual', 'geometric', 'both_sides', 'normalised'),
    )
    channels: int = option(32, 'Of the first layer, even; 16 take a third of the time.', low=4, high=128)


@dataclass(frozen=True)
class RenderedConfig:
    """First stage: the generator on rendered scenes, where the mask is exact and free."""

    steps: int = option(1100, 'Steps; 0: none, start from start.model or from random weights.', low=0, high=10**9)
    batch: int = option(10, 'Pairs a step.', low=1, high=4096)
    learning_rate: float = option(1e-3, 'Of AdamW, after a rise, before a half cosine.', low=1e-8, high=1)
    average: float = option(0.995, 'Decay of the moving average of the weights.', low=0, high=0.999999)
    flights: float = option(0.0, 'Share of pairs that are flights over things that stand up.', low=0, high=1)
    still_flights: float = option(0.33, 'Share of flights in which nothing moves on its own.', low=0, high=1)
    followed: float = option(0.0, 'Share of pairs with something that moves whose camera follows it.', low=0, high=1)
    kept: int = option(
        0,
        'Pairs that are rendered once, kept beside the flow cache at data.height x data.width, and drawn again and '
        'again, each time cut and mirrored anew; 0: every pair is rendered anew.',
        low=0,
        high=10**7,
    )
    teacher: str = option(
        '',
        'Generator whose masks count as the exact ones do, where it sees as many sides; .safetensors, or the '
        'package\'s "default" or "small".',
    )


@dataclass(frozen=True)
class InpainterConfig:
    """Second stage: the inpainter alone, filling random boxes of the flow."""

    steps: int = option(600, 'Steps; 0: none.', low=0, high=10**9)
    batch: int = option(16, 'Pairs a step.', low=1, high=4096)
    learning_rate: float = option(3e-4, 'Of Adam.', low=1e-8, high=1)


@dataclass(frozen=True)
class GameConfig:
    """Third stage: generator against inpainter (equation 9 of the paper) on unlabelled video."""

    steps: int = option(600, 'Updates of either player; 0: none.', low=0, high=10**9)
    batch: int = option(16, 'Pairs a step.', low=1, high=4096)
    learning_rate: float = option(1e-4, 'Of Adam, beta1 0.9.', low=1e-8, high=1)
    generator_steps: int = option(3, 'Generator updates after each inpainter update.', low=1, high=100)
    clip: float = option(0.2, 'Gradients are clipped by value to plus and minus this.', low=1e-6, high=1e6)
    adversarial: float = option(1.0, "Weight of the game's own loss in the generator's.", low=0, high=1e3)
    consistency: float = option(0.0, 'Weight of agreement with the generator before the game, by CRF.', low=0, high=1e3)
    average: float = option(0.99, 'Decay of the moving average of the weights.', low=0, high=0.999999)


@dataclass(frozen=True)
class TeacherConfig:
    """Last stage: the generator learns, from flow.*, the masks of a better detector, one that is affordable offline."""

    steps: int = option(0, 'Steps; 0: none.', low=0, high=10**9)
    batch: int = option(8, 'Pairs a step.', low=1, high=4096)
    learning_rate: float = option(3e-4, 'Of AdamW, after a rise, before a half cosine.', low=1e-8, high=1)
    average: float = option(0.99, 'Decay of the moving average of the weights.', low=0, high=0.999999)
    detector: str = option(
        'config/accurate.yaml', "The detector that teaches: a parameter file, the package's own or another."
    )
    rendered: float = option(
        0.5,
        'Share of pairs that are rendered, as rendered.* says; footage alone makes it forget what stands still.',
        low=0,
        high=1,
    )


@dataclass(frozen=True)
class RunConfig:
    """How any training runs."""

    seed: int = option(1, 'The same seed gives the same weights on the same machine.', low=0, high=2**31 - 1)
    device: str = option('auto', 'auto, cpu, cuda or cuda:N.')
    workers: int = option(1, 'Processes that prepare batches; 0: the training process itself.', low=0, high=256)
    threads: int = option(0, 'CPU threads of PyTorch; 0: its own choice.', low=0, high=256)
    precision: str = option('float32', 'bfloat16: mixed, flow itself in float32.', choices=('float32', 'bfloat16'))
    checkpoint_every: int = option(50, 'Steps between checkpoints.', low=1, high=10**9)
    picture_every: int = option(100, 'Steps between pictures.', low=1, high=10**9)


@dataclass(frozen=True)
class GameRunConfig(RunConfig):
    """How ``train`` runs."""

    candidates: int = option(5, 'Candidates for the model in game and teacher, evenly spread.', low=1, high=1000)


@dataclass(frozen=True)
class StartConfig:
    """What a run starts from."""

    model: str = option(
        '', 'Generator to start from, .safetensors, or the package\'s "default" or "small"; empty: random weights.'
    )
    inpainter: str = option('', 'Inpainter to start from, .safetensors, or "default"; empty: random weights.')


@dataclass(frozen=True)
class TrainConfig:
    """All options of ``train``."""

    name: str = option('generator', 'Name of the model file that the run leaves.')
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
        """Whether nothing but the inpainter is trained: on rendered scenes where there is no footage."""
        return bool(self.inpainter.steps) and not self.rendered.steps + self.game.steps + self.teacher.steps

    def __post_init__(self) -> None:
        height, width = self.network.height, self.network.width
        if height % 4 or width % 4:
            raise UserError(f'network.height and network.width are {height} and {width}, but take multiples of 4')
        if not self.name or Path(self.name).name != self.name:
            raise UserError(f'name is {shown(self.name)}, but takes a name of a file without folders; they go to --out')
        if self.game.steps and not self.game.adversarial + self.game.consistency:
            raise UserError('game.adversarial and game.consistency are both 0; set one of them, or game.steps=0')


@dataclass(frozen=True)
class TrainingConfig:
    """Learning from rendered pairs, whose flow is exact and free."""

    steps: int = option(2000, 'Updates; 0: none, only measure start.model.', low=0, high=10**9)
    batch: int = option(8, 'Rendered pairs a step.', low=1, high=4096)
    learning_rate: float = option(4e-4, 'Greatest rate of AdamW; one cycle, after 5 % of the steps.', low=1e-8, high=1)
    matching: float = option(0.3, 'Weight of likeness of the same point; it falls evenly to 0.', low=0, high=1e3)
    average: float = option(0.99, 'Decay of the moving average, which is the model.', low=0, high=0.999999)
    height: int = option(128, 'Height of the pairs, multiple of 64, pixels.', low=64, high=2048)
    width: int = option(192, 'Width of the pairs, multiple of 64, pixels.', low=64, high=4096)
    largest_gap: float = option(4.0, 'Most frames of scene time from one image to the other.', low=0.3, high=20)
    pairs_per_scene: int = option(2, 'Cut from one rendering; more is faster and less varied.', low=1, high=64)


@dataclass(frozen=True)
class ValidationConfig:
    """What the end-point error is measured on."""

    scenes: int = option(32, 'Rendered pairs that training never sees.', low=1, high=10**5)
    every: int = option(200, 'Steps between measurements on them, besides the one at the end.', low=1, high=10**9)
    folder: str = option('', 'Of pairs to measure at the end, each a folder with frame1.png, frame2.png and a .flo.')


@dataclass(frozen=True)
class FlowStartConfig:
    """What a training of PWC-Net starts from."""

    model: str = option('', "PWC-Net to start from, .safetensors or its authors' file; empty: random weights.")


@dataclass(frozen=True)
class FlowTrainConfig:
    """All options of ``train flow``."""

    name: str = option('pwcnet', 'Name of the model file that the run leaves.')
    start: FlowStartConfig = field(default_factory=FlowStartConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        height, width = self.training.height, self.training.width
        if height % 64 or width % 64:
            raise UserError(f'training.height and training.width are {height} and {width}, but take multiples of 64')
