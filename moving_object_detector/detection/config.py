"""The detector's options and, here only, their defaults."""

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
        'Flow estimator: OpenCV DIS (CPU), PWC-Net or RAFT-small; auto: RAFT-small or PWC-Net if get_weights has '
        'fetched its weights, else DIS.',
        choices=('auto', 'dis', 'pwcnet', 'raft_small'),
    )
    preset: str = option(
        'medium',
        'Quality of DIS; lean takes half the time of medium and is slightly less accurate, brisk takes a third and is '
        'for masks of up to 128x256.',
        choices=('ultrafast', 'fast', 'brisk', 'lean', 'medium'),
    )
    height: int = option(320, 'Height at which flow is computed, pixels.', low=32, high=2048)
    width: int = option(640, 'Width at which flow is computed, pixels.', low=32, high=4096)
    model: str = option(
        '',
        "Weights file of PWC-Net or RAFT-small: .safetensors, or the authors' PyTorch file; empty: the weights that "
        'get_weights has fetched.',
    )
    iterations: int = option(12, 'Iterations of RAFT-small without a previous flow to start from.', low=1, high=64)
    warm_iterations: int = option(
        6,
        "Iterations of RAFT-small when it starts from the previous frame's flow (warm start); 0: no warm start.",
        low=0,
        high=64,
    )


@dataclass(frozen=True)
class WindowConfig:
    """The neighbours of a frame that vote on its mask (equation 14 of the paper)."""

    past: int = option(5, 'Earlier frames that vote.', low=0, high=20)
    future: int = option(5, 'Later frames that vote; they delay the refined result by future x stride.', low=0, high=20)
    stride: int = option(1, 'Distance between voting neighbours, frames.', low=1, high=10)
    slow_stride: int = option(
        1,
        'Stride used instead, if larger, while all motion is slower than a hundredth of the image width per frame: '
        'frames farther apart show slow motion better, but the refined result comes later.',
        low=1,
        high=10,
    )

    @property
    def delay(self) -> int:
        """Delay of the refined result, frames."""
        return self.future * self.stride

    @property
    def reach(self) -> int:
        """Distance to the farthest possible neighbour, frames."""
        return max(self.past, self.future) * max(self.stride, self.slow_stride)

    def slowed(self) -> WindowConfig:
        """Return the window used while all motion is slow."""
        return replace(self, stride=max(self.stride, self.slow_stride))

    def __str__(self) -> str:
        """Return for example ``window -2..+2, stride 1``."""
        return f'window -{self.past}..+{self.future}, stride {self.stride}'


@dataclass(frozen=True)
class GateConfig:
    """When a scene counts as static."""

    min_motion: float = option(
        1.0,
        'Least flow, after subtraction of the camera motion, that counts as motion, in thousandths of the image width; '
        'below it the mask is empty.',
        low=0.0,
        high=1000.0,
        runtime=True,
    )


@dataclass(frozen=True)
class RefinementConfig:
    """How the mask is fitted to the image."""

    method: str = option(
        'grid_crf',
        "none, crf (the paper's fully connected CRF) or grid_crf (that on a bilateral grid, in a tenth of the time).",
        choices=('none', 'crf', 'grid_crf'),
        runtime=True,
    )
    height: int = option(192, 'Height at which the mask is refined, pixels.', low=16, high=2160)
    width: int = option(384, 'Width at which the mask is refined, pixels.', low=16, high=4096)
    iterations: int = option(5, 'Mean-field iterations of either CRF; the paper has 50.', low=1, high=200, runtime=True)


def check_refinement(method: str) -> None:
    """Raise UserError if a ``refinement.method`` needs a package that is not installed."""
    if method == 'crf' and find_spec('pydensecrf') is None:
        raise UserError(
            'refinement.method is crf, but pydensecrf2 is not installed; install it (see requirements/crf.txt) or '
            'set refinement.method to grid_crf'
        )


@dataclass(frozen=True)
class MaskConfig:
    """From probability to mask and regions."""

    threshold: float = option(0.5, 'Pixels of at least this probability are masked.', low=0.01, high=0.99, runtime=True)
    min_area: float = option(
        0.0005, 'Drop regions smaller than this share of the image.', low=0.0, high=1.0, runtime=True
    )
    hysteresis: bool = option(
        True,
        "Use the previous frame's mask, warped by the flow: it completes regions found in both frames and weakens all "
        'others. Needs an earlier neighbour (window.past) and masks at most 3 frames apart. False: each frame '
        'independently, as in the paper.',
        runtime=True,
    )


@dataclass(frozen=True)
class RigidConfig:
    """When a region is taken for a near but static part of the scene."""

    min_score: float = option(
        0.6,
        'Drop regions with a lower score: the probability that a region moves on its own, judged by how much of its '
        'flow a static scene seen by the moving camera cannot explain; 0: keep all.',
        low=0.0,
        high=1.0,
        runtime=True,
    )
    focal_length: float = option(
        0.9,
        'Focal length assumed without a usable camera_info, as a share of the image width.',
        low=0.1,
        high=20.0,
        runtime=True,
    )


@dataclass(frozen=True)
class OdometryConfig:
    """Sources of the camera's intrinsics and motion; by default the motion is estimated from the images alone."""

    camera_info: str = option(
        'auto', 'Topic of the sensor_msgs/CameraInfo; auto: camera_info beside the image topic; none: do not subscribe.'
    )
    topic: str = option('', "Topic of the robot's nav_msgs/Odometry; empty: none.")
    frame: str = option(
        '', 'Fixed tf frame, such as odom, in which to look up the pose of the camera; empty: do not use tf for motion.'
    )
    camera_frame: str = option('', "The camera's optical frame; empty: the frame_id of camera_info.")
    extrinsics: str = option(
        '',
        "Pose of the camera's optical frame in the odometry's child frame (the robot's base), x y z qx qy qz qw "
        '(metres, quaternion); empty: look it up in tf.',
    )


@dataclass(frozen=True)
class ContinuityConfig:
    """When the detector restarts with a new stream."""

    max_gap: float = option(1.0, 'Longest gap between frames, seconds; restart after a longer one.', low=0.01, high=1e6)


@dataclass(frozen=True)
class DetectorConfig:
    """All options of a detector."""

    model: str = option(
        '',
        'Generator weights, .safetensors; empty: the default weights in the package; small: its half-width generator '
        'for DIS flow, used by config/cpu.yaml.',
    )
    engine: str = option(
        'auto',
        'Inference engine of the networks; auto: OpenVINO on a CPU if it is installed, else PyTorch.',
        choices=('auto', 'torch', 'openvino', 'torch_tensorrt'),
    )
    precision: str = option(
        'auto',
        'Numeric precision of the networks; auto: bfloat16 for the generator and RAFT-small with OpenVINO on CPUs that '
        'support it, else float32. float16 is for GPUs, int8 for OpenVINO with a model measured by quantise.',
        choices=('auto', 'float32', 'float16', 'bfloat16', 'int8'),
    )
    device: str = option('auto', 'auto, cpu, cuda or cuda:N.')
    height: int = option(0, "Height of the generator's input, multiple of 4; 0: the model's own.", low=0, high=2048)
    width: int = option(0, "Width of the generator's input, multiple of 4; 0: the model's own.", low=0, high=4096)
    threads: int = option(
        0, 'CPU threads of the networks, and pairs that DIS computes in parallel; 0: one per core.', low=0, high=256
    )
    experimental_gpu: bool = option(
        False,
        'On a GPU with engine torch: compile the networks into fused kernels and CUDA graphs; takes minutes, and the '
        'speed-up has not been measured.',
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
    """How the detector adapts to a machine that is too slow."""

    target_rate: float = option(
        0.0,
        'Masks per second to sustain, at most the image rate: the window shrinks while the machine is too slow and '
        'grows again when there is time; 0: fixed window.',
        low=0.0,
        high=1000.0,
        runtime=True,
    )
