"""A clip through the real detector: one process plays, one detects, one records, ROS 2 between them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from moving_object_detector.nodes.children import Child

if TYPE_CHECKING:
    from rclpy.node import Node

    from moving_object_detector.nodes.watcher import Watcher

_START_SECONDS: Final = 300.0
"""For the model to load, on a busy machine and where an engine is built first."""
_FIND_SECONDS: Final = '60'
"""For processes to find each other."""


def isolated_environment(domain: int | None) -> dict[str, str]:
    """Return this process's environment with a ROS domain of its own that nothing outside the machine sees."""
    environment = dict(os.environ)
    # Up to 101 the ports stay clear of those that the system hands out.
    environment['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 101 if domain is None else domain)
    if environment.get('ROS_DISTRO') == 'humble':
        environment['ROS_LOCALHOST_ONLY'] = '1'
    else:
        environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    return environment


@dataclass(frozen=True)
class Parts:
    """What the three programs are told; ``play`` gets the input first."""

    detect: Sequence[str | Path]
    """Arguments of ``detect``, from ``--ros-args`` on."""
    record: Sequence[str | Path]
    results: Sequence[str]
    """Topics that the recording subscribes to; nothing is played before."""
    play: Sequence[str | Path]


@dataclass(frozen=True)
class Played:
    """How it went."""

    watcher: Watcher
    frames: int
    """Frames that were published."""
    play_log: str
    """What ``play`` printed."""
    record_log: str


class Playthrough:
    """Programs that leave their logs in a folder.

    Args:
        command: From the name of a program to what starts it.
        folder: For the logs; must be there.
        environment: Environment variables of the programs.

    """

    def __init__(self, command: Callable[[str], Sequence[str]], folder: Path, environment: Mapping[str, str]) -> None:
        self._command = command
        self._folder = folder
        self._environment = environment

    def log(self, program: str) -> Path:
        """Return where a program's output goes."""
        return self._folder / ('node.log' if program == 'detect' else f'{program}.log')

    def child(self, program: str, arguments: Sequence[str | Path]) -> Child:
        """Start a program."""
        command = [*self._command(program), *map(str, arguments)]
        return Child(command, self.log(program), self._environment, program)

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run a program to its end; raises a UserError if it fails."""
        with self.child(program, arguments) as child:
            child.wait()

    def play(self, node: Node, stop: threading.Event, clip: Path, parts: Parts, lookers: int = 1) -> Played:
        """Play a clip to its end and wait for the last results.

        Args:
            node: A node of this process, in the domain of the programs; the caller spins it.
            stop: Set by Ctrl-C.
            clip: Folder of frames, video or bag.
            parts: What the programs are told.
            lookers: Subscribers that the first result must have before the clip is played.

        Raises:
            UserError: A program failed, or the detector refuses its parameters.
            KeyboardInterrupt: ``stop`` was set; all programs have ended.

        """
        from moving_object_detector.nodes.watcher import Settled, Watcher

        with ExitStack() as running:
            watcher = Watcher(node, stop)
            print('loading the model', flush=True)
            detect = running.enter_context(self.child('detect', parts.detect))
            watcher.wait(lambda: watcher.values.get('state') == 'active', 'activation', [detect], _START_SECONDS)
            record = running.enter_context(self.child('record', parts.record))
            watcher.wait(lambda: watcher.subscribed(*parts.results), 'recording', [detect, record], _START_SECONDS)
            enough = lambda: node.count_subscribers(parts.results[0]) >= lookers  # noqa: E731
            watcher.wait(enough, 'a look', [detect, record], _START_SECONDS)
            print(f'playing {clip}', flush=True)
            waiting = ('--wait-for-subscriber', _FIND_SECONDS)
            play = running.enter_context(self.child('play', [clip, *parts.play, *waiting]))
            settled = Settled(watcher)
            watcher.wait(lambda: settled(playing=not play.finished()), 'the end', [detect, record], float('inf'))
            record.stop()
            detect.stop()
            played = play.number_before(' frames published')
        return Played(watcher, played, self._read('play'), self._read('record'))

    def _read(self, program: str) -> str:
        return self.log(program).read_text(encoding='utf-8', errors='replace')
