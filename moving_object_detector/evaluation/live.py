"""The real node as a method to score: a clip is played through it over DDS, and what it missed counts as missed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import make_folder
from moving_object_detector.common.parameter_files import load_config, read_parameter_file
from moving_object_detector.datasets.bag import BagSource, BagTopic, read_numbers
from moving_object_detector.datasets.frames import Frame, FrameSource, ros_stamp_offset
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.evaluation.bag_clips import read_masks
from moving_object_detector.evaluation.detector_method import config_identity
from moving_object_detector.evaluation.method import Finding
from moving_object_detector.evaluation.packed_mask import PackedMask

_PROGRAM: Final = 'moving_object_detector.nodes.live'
_MASK: Final = '/detect/mask'
_LATENCY: Final = '/detect/debug/pipeline_latency_ms'
_PATIENCE: Final = 120.0
"""Seconds that the program is given to end its own children after Ctrl-C."""
_SLOW: Final = 0.9
"""Played at less than this share of the rate that was asked for, a clip is played too slowly to tell."""


@dataclass(frozen=True)
class LiveRecording:
    """What the program ``live`` left of one clip."""

    masks: Mapping[int, PackedMask]
    """By the stamp of their image in nanoseconds."""
    latencies: tuple[float, ...]
    """Milliseconds from an image's message to its results, in the order of the masks."""
    counts: Mapping[str, int]
    """Frames that were played, lost, received, dropped, skipped and so on."""
    problems: tuple[str, ...]
    """Sentences about what was not as it should be."""


def read_recording(folder: Path) -> LiveRecording:
    """Read what ``live`` left in a folder.

    Raises:
        UserError: It is not complete.

    """
    path = folder / 'live.json'
    try:
        report = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read: {error}; play the clip again') from error
    counts = {name: int(value) for name, value in report['frames'].items()}
    masks: dict[int, PackedMask] = {}
    problems: list[str] = []
    bag = folder / 'masks'
    if counts['recorded']:
        masks, problems = read_masks(BagTopic(bag, topic=_MASK))
    latencies = read_numbers(bag, _LATENCY) if bag.exists() else []
    if counts['lost']:
        problems.append(
            f'{counts["lost"]} of {counts["played"]} images never came to the detector, which was too busy to '
            'take them or takes them with best effort: they count as missed'
        )
    if counts['recorded'] < counts['published']:
        problems.append(f'{counts["published"] - counts["recorded"]} masks were published and not recorded')
    asked, played = (float(report['frames per second'][name]) for name in ('asked', 'played'))
    if played < _SLOW * asked:
        problems.append(f'played at {played:.1f} frames/s, not at {asked:.1f}: this machine cannot play faster')
    return LiveRecording(masks, tuple(latencies), counts, tuple(problems))


@contextmanager
def _interruptible(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the process as Ctrl-C does when the context is left by an error, so that it can end its own children."""
    try:
        yield
    except BaseException:
        for number in (signal.SIGINT, signal.SIGKILL):
            process.send_signal(number)
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                continue
            break
        raise


def play_live(path: Path, folder: Path, options: Sequence[str]) -> LiveRecording:
    """Play a recording through the node, in processes of their own, and read what it said.

    Args:
        path: Bag, folder of frames or video.
        folder: For the recording and the logs.
        options: More arguments of the program ``live``.

    Raises:
        UserError: ROS 2 is not there, a parameter is wrong, or a process failed; the message says which.

    """
    make_folder(folder)
    (folder / 'live.json').unlink(missing_ok=True)
    log = folder / 'live.log'
    package = Path(__file__).resolve().parents[2]
    paths = [str(package), *filter(None, [os.environ.get('PYTHONPATH')])]
    command = [sys.executable, '-m', _PROGRAM, str(path), '--out', str(folder), *options]
    with log.open('wb') as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
            # Ctrl-C in the terminal comes through here, and once.
            start_new_session=True,
        )
    with _interruptible(process):
        status = process.wait()
    if status:
        text = log.read_text(encoding='utf-8', errors='replace').strip()
        _, found, reason = text.rpartition('error: ')
        raise UserError(reason if found else f'live ended with status {status}; see {log}')
    return read_recording(folder)


class LiveMethod:
    """Plays each clip through the node first and gives its masks then; a frame without one gets no finding.

    Args:
        params: The node's parameter file; None: its own defaults.
        rate: Times faster than recorded.
        folder: For a folder of each clip, with the recording and the logs.
        settings: More parameters as NAME=VALUE.
        best_effort: Images that are lost on the way are not sent again, as from most cameras.
        domain: ROS domain of the processes; None: one of their own.

    Raises:
        UserError: A parameter is wrong.

    """

    name = 'live'
    variants: tuple[str, ...] = ('live',)

    def __init__(
        self,
        params: Path | None,
        rate: float,
        folder: Path,
        *,
        settings: Sequence[str] = (),
        best_effort: bool = False,
        domain: int | None = None,
    ) -> None:
        config = load_config(DetectorConfig(), params, settings)
        own = read_parameter_file(params) if params is not None else {}
        self.identity: Mapping[str, Any] = {
            'rate': rate,
            'best_effort': best_effort,
            'estimate': own.get('estimate', 'refined'),
            **config_identity(config),
        }
        self.details: Mapping[str, Any] = {}
        self._folder = folder
        self._options = ['--rate', str(rate), *(['--best-effort'] if best_effort else [])]
        self._options += ['--params', str(params)] if params is not None else []
        self._options += ['--domain-id', str(domain)] if domain is not None else []
        self._settings = [argument for setting in settings for argument in ('-p', setting.replace('=', ':=', 1))]

    def start(self, name: str, source: FrameSource) -> Sequence[str]:
        """Play a clip; :meth:`step` then gives what came.

        Args:
            name: Of the clip.
            source: Opened from a bag, a folder or a video, whose path is its name.

        Raises:
            UserError: As :func:`play_live`.

        """
        path = Path(source.name)
        if not path.exists():
            raise UserError(f'{source.name} cannot be played: only a bag, a folder of frames or a video can')
        # A bag has times of its own, which a rate would replace.
        own = ['--bag-topic', source.topic] if isinstance(source, BagSource) else ['--fps', str(source.fps)]
        options = [*self._options, *own]
        if self._settings:
            options += ['--ros-args', *self._settings]
        recording = play_live(path, self._folder / name, options)
        self.take(recording)
        return recording.problems

    def take(self, recording: LiveRecording) -> None:
        """Give what a recording holds, from its first frame on."""
        self._recording = recording
        self._offset: int | None = None
        self._last: int | None = None
        self._given = 0

    def step(self, frame: Frame, index: int) -> Iterable[Finding]:
        """Return the mask that came for a frame, if any."""
        if self._offset is None:
            self._offset = ros_stamp_offset(frame.stamp)
        repeats, self._last = frame.stamp == self._last, frame.stamp
        if repeats:
            return []
        packed = self._recording.masks.get(frame.stamp + self._offset)
        if packed is None:
            return []
        latencies = self._recording.latencies
        latency = latencies[self._given] if self._given < len(latencies) else None
        self._given += 1
        mask = packed.read().astype(np.uint8) * np.uint8(255)
        return [Finding(index=index, variant=self.variants[0], image=frame.image, mask=mask, latency=latency)]

    def finish(self) -> Iterable[Finding]:
        """Return nothing: all was said."""
        return []
