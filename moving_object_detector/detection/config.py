"""The detector's options: the single place where each default stands."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.util import find_spec

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.options import option


@dataclass(frozen=True)
class FlowConfig:
    """How optical flow is estimated."""

    backend: str = option(
        'dis',
        'Flow estimator: OpenCV DIS (CPU), PWC-Net or RAFT-small; auto: RAFT-small or PWC-Net where get_weights has '
        'fetched its weights, else DIS.',
        choices=('auto', 'dis', 'pwcnet', 'raft_small'),
    )
    preset: str = option(
        'medium',
        'Quality of DIS; lean takes half the time of medium for a little less, brisk a third for masks at 96x192.',
        choices=('ultrafast', 'fast', 'brisk', 'lean', 'medium'),
    )
    height: int = option(320, 'Height at which flow is computed, pixels.', low=32, high=2048)
    width: int = option(640, 'Width at which flow is computed, pixels.', low=32, high=4096)
    model: str = option(
        '',
        'Weights of PWC-Net or RAFT-small: .safetensors, or the PyTorch file of their authors; empty: those that '
        'get_weights has fetched.',
    )
    iterations: int = option(12, 'Iterations of RAFT-small for a pair of frames with none before it.', low=1, high=64)
    warm_iterations: int = option(
        6,
        'Iterations of RAFT-small where the flow found at the frame before is the start; 0: there is no such start.',
        low=0,
        high=64,
    )


@dataclass(frozen=True)
class WindowConfig:
    """Which neighbours of a frame vote on its mask (equation 14 of the paper)."""

    past: int = option(5, 'Earlier frames that vote.', low=0, high=20)
    future: int = option(5, 'Later frames that vote; the refined result is late by future x stride.', low=0, high=20)
    stride: int = option(1, 'Frames from one voting neighbour to the next.', low=1, high=10)
    slow_stride: int = option(
        1,
        'The same, where it is larger than stride, while what moves is slower than a hundredth of the image width a '
        'frame: neighbours farther away show it better, and the refined result is later.',
        low=1,
        high=10,
    )

    @property
    def delay(self) -> int:
        """Frames that the refined result waits for."""
        return self.future * self.stride

    @property
    def reach(self) -> int:
        """Frames to the farthest neighbour there can be."""
        return max(self.past, self.future) * max(self.stride, self.slow_stride)

    def slowed(self) -> WindowConfig:
        """Return the window while all is slow."""
        return replace(self, stride=max(self.stride, self.slow_stride))

    def __str__(self) -> str:
        """Return for example ``window -2..+2, stride 1``."""
        return f'window -{self.past}..+{self.future}, stride {self.stride}'


@dataclass(frozen=True)
class GateConfig:
    """When a scene counts as one in which nothing moves on its own."""

    min_motion: float = option(
        1.0,
        "Least motion that remains without the camera's, in thousandths of the image width; below it nothing moves on "
        'its own and the mask is empty.',
        low=0.0,
        high=1000.0,
        runtime=True,
    )


@dataclass(frozen=True)
class RefinementConfig:
    """How the mask is fitted to the image."""

    method: str = option(
        'grid_crf',
        'none, crf (the fully connected CRF of the paper) or grid_crf (the same on a coarse grid, in a tenth of the '
        'time).',
        choices=('none', 'crf', 'grid_crf'),
        runtime=True,
    )
    height: int = option(192, 'Height at which the mask is refined, pixels.', low=16, high=2160)
    width: int = option(384, 'Width at which the mask is refined, pixels.', low=16, high=4096)
    iterations: int = option(5, 'Mean-field iterations of either CRF; the paper has 50.', low=1, high=200, runtime=True)


def check_refinement(method: str) -> None:
    """Raise UserError where what a method of :class:`RefinementConfig` needs is not installed."""
    if method == 'crf' and find_spec('pydensecrf') is None:
        raise UserError(
            'refinement.method is crf, but pydensecrf2 is not installed; install it (see requirements/crf.txt) or '
            'set refinement.method to grid_crf'
        )


@dataclass(frozen=True)
class MaskConfig:
    """From probability to mask and regions."""

    threshold: float = option(0.5, 'Probability from which a pixel is in the mask.', low=0.01, high=0.99, runtime=True)
    min_area: float = option(
        0.0005, 'Regions smaller than this share of the image are dropped.', low=0.0, high=1.0, runtime=True
    )
    hysteresis: bool = option(
        True,
        'What was found in the frame before, carried along by the flow, holds a mask together; what was not found '
        'there counts for less. It needs an earlier neighbour (window.past), and masks of no more than 3 frames apart. '
        "False: each frame's mask by itself, as in the paper.",
        runtime=True,
    )


@dataclass(frozen=True)
class RigidConfig:
    """When a region is taken for a part of the scene that is merely near."""

    min_score: float = option(
        0.5,
        'Regions are dropped that move on their own less surely than this, by what of their flow a rigid scene, seen '
        'by the travelling camera, does not explain; 0: none is dropped.',
        low=0.0,
        high=1.0,
        runtime=True,
    )
    focal_length: float = option(
        0.9,
        "Focal length of the camera, as a share of the image's width, where no camera_info tells it.",
        low=0.1,
        high=20.0,
        runtime=True,
    )


@dataclass(frozen=True)
class OdometryConfig:
    """Where the camera and its motion are known from; by default the motion from the images alone."""

    camera_info: str = option(
        'auto', "sensor_msgs/CameraInfo of the images; auto: the topic camera_info beside the images'; none: unheard."
    )
    topic: str = option('', 'nav_msgs/Odometry of the robot; empty: none.')
    frame: str = option(
        '', "Frame that stands still, such as odom, in which tf has the camera's; empty: tf is not asked."
    )
    camera_frame: str = option('', "The camera's optical frame; empty: as camera_info says.")
    extrinsics: str = option(
        '',
        "Pose of the camera's optical frame in the frame whose odometry it is, x y z qx qy qz qw (metres, quaternion); "
        'empty: by tf.',
    )


@dataclass(frozen=True)
class ContinuityConfig:
    """When a stream is taken to start anew."""

    max_gap: float = option(1.0, 'Seconds between two frames above which the detector starts anew.', low=0.01, high=1e6)


@dataclass(frozen=True)
class DetectorConfig:
    """All options of a detector."""

    model: str = option(
        '',
        'Generator weights, .safetensors; empty: those that come with the package; small: its generator of half the '
        'width for DIS flow, which config/cpu.yaml takes.',
    )
    engine: str = option(
        'auto',
        'What runs the networks; auto: OpenVINO on a CPU where it is installed, else PyTorch.',
        choices=('auto', 'torch', 'openvino', 'torch_tensorrt'),
    )
    precision: str = option(
        'auto',
        'What the engine computes in; auto: float32, masks in bfloat16 where OpenVINO runs on a CPU with instructions '
        'for it. float16 is for GPUs, int8 for OpenVINO with a model whose ranges were measured.',
        choices=('auto', 'float32', 'float16', 'bfloat16', 'int8'),
    )
    device: str = option('auto', 'auto, cpu, cuda or cuda:N.')
    height: int = option(0, "Height of the generator's input, multiple of 4; 0: the model's own.", low=0, high=2048)
    width: int = option(0, "Width of the generator's input, multiple of 4; 0: the model's own.", low=0, high=4096)
    threads: int = option(
        0, 'CPU threads of the networks, and pairs that DIS computes at a time; 0: one for each core.', low=0, high=256
    )
    experimental_gpu: bool = option(
        False,
        'On a GPU with engine torch: compile networks into fused kernels and CUDA graphs, which takes minutes and has '
        'not been measured.',
    )
    flow: FlowConfig = field(default_factory=FlowConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    rigid: RigidConfig = field(default_factory=RigidConfig)
    odometry: OdometryConfig = field(default_factory=OdometryConfig)
    continuity: ContinuityConfig = field(default_factory=ContinuityConfig)


@dataclass(frozen=True)
class LoadConfig:
    """What is given up when the machine is behind."""

    target_rate: float = option(
        0.0,
        'Masks per second to keep up, at most one for each image: the window shrinks as far as needed and grows again '
        'when there is time; 0: it stays as it is.',
        low=0.0,
        high=1000.0,
        runtime=True,
    )
