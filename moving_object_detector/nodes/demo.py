"""The program ``demo``: plays a clip through the detector and records the results, each program in its own process."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.files import make_folder, share_folder
from moving_object_detector.common.parameter_files import find_config
from moving_object_detector.media.sources import open_source
from moving_object_detector.nodes.commands import PAGE_PORT
from moving_object_detector.nodes.runtime import PROFILE_VARIABLES, ros_node, spinning

_PATIENCE: Final = {signal.SIGINT: 20.0, signal.SIGTERM: 5.0, signal.SIGKILL: 5.0}
"""Signals that end a program, in order, and how long to wait after each, in seconds."""
_LAST_LINES: Final = 20
_START_SECONDS: Final = 300.0
"""Longest wait for the model to load on a busy machine, and for the page to be opened."""
_FIND_SECONDS: Final = '60'
"""Longest wait for the processes to discover each other."""
_REPORT_SECONDS: Final = 5.0
_SETTLED_SECONDS: Final = 6.0
"""Without a new result for this long, no more will come; longer than the detector's ``input.timeout``."""
_FLUSH_SECONDS: Final = 30.0
"""As long, while frames that were processed have no result: a busy machine may take longer."""
_FLIGHT: Final = ('--motion', 'forward', '--parallax', '0.3')
"""Few static objects close to the camera: they are harder to tell from moving ones."""
_RESULTS: Final = ('/detect/overlay', '/detect/mask', '/detect/debug/pipeline_latency_ms')


class Child(AbstractContextManager['Child']):
    """A running program that ends with the context; in its own session, so that Ctrl-C reaches only the demo."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name, self.log = name, log
        with log.open('wb') as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def __exit__(self, *_: object) -> None:
        """End the program if it still runs."""
        for number, seconds in _PATIENCE.items():
            if self._process.poll() is None:
                self._process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(seconds)

    def finished(self) -> bool:
        """Return whether the program has ended; if it failed, print the end of its log and raise UserError."""
        status = self._process.poll()
        if status:
            lines = self.log.read_text(encoding='utf-8', errors='replace').splitlines()[-_LAST_LINES:]
            sys.stderr.writelines(f'  {foreign(line, 300)}\n' for line in lines or ['(it printed nothing)'])
            raise UserError(f'{self.name} failed, exit status {status}; the lines above are the end of {self.log}')
        return status is not None

    def wait(self) -> None:
        """Wait until the program ends; raises as :meth:`finished`."""
        self._process.wait()
        self.finished()

    def stop(self) -> None:
        """End the program with Ctrl-C; raises as :meth:`finished` if it fails."""
        self.__exit__()
        self.finished()


class Watcher:
    """Follows a detector's status on ``/diagnostics``."""

    def __init__(self, node: Node, stop: threading.Event) -> None:
        self.values: dict[str, str] = {}
        self._refusal = ''
        self._stop = stop
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_status, 10)

    def _on_status(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if 'frames received' in values:
                self.values = values
                self._refusal = status.message if status.level == status.ERROR else ''

    def count(self, name: str) -> int:
        """Return the latest count ``frames NAME``."""
        return int(self.values.get(f'frames {name}', '0'))

    def wait(
        self, done: Callable[[], bool], what: str, children: Sequence[Child], limit: float = _START_SECONDS
    ) -> None:
        """Wait until ``done``; UserError if a child ends, the detector refuses or time runs out; Ctrl-C: SystemExit."""
        begin = time.monotonic()
        while not done():
            for child in children:
                if child.finished():
                    raise UserError(f'{child.name} ended unexpectedly; see {child.log}')
            if self._refusal:
                raise UserError(f'the detector is {self._refusal}')
            if time.monotonic() - begin > limit:
                raise UserError(f'{what} did not happen within {limit:g} s; see the logs of the programs')
            if self._stop.wait(0.1):
                raise SystemExit(130)

    def wait_settled(self, play: Child, children: Sequence[Child]) -> None:
        """Wait until ``play`` has ended and no new result comes; print the progress."""
        published, changed, reported = -1, time.monotonic(), time.monotonic()

        def settled() -> bool:
            nonlocal published, changed, reported
            now, count = time.monotonic(), self.count('published')
            if not play.finished() or count != published:
                published, changed = count, now
            if now - reported > _REPORT_SECONDS:
                reported = now
                print(f'  {self.count("received")} frames received, {count} masks published', flush=True)
            # The last frames wait until the node takes the silence for the end of the stream.
            owed = self.count('processed') - self.count('missed') - count
            return now - changed > (_FLUSH_SECONDS if owed > 0 else _SETTLED_SECONDS)

        self.wait(settled, 'the end', children, float('inf'))

    def summary(self, played: int | None, rate: float) -> str:
        """Summarise the run on a clip of ``played`` frames (None: unknown), with advice if the machine was too slow."""
        values, received, skipped = self.values, self.count('received'), self.count('skipped')
        played = received if played is None else played
        each = float(values['processing median ms'])
        speed = f'up to {1000 / each:.1f} frames/s: {each:.0f} ms each, median' if each else 'no frame was processed'
        dropped = self.count('dropped') + max(played - received, 0)
        slower = (
            f'\n{dropped + skipped} frames got no mask, because they came too fast for this machine; '
            f'play more slowly: --rate {rate / 2:g} (make demo RATE={rate / 2:g})'
        )
        return (
            f'frames {played}, masks {self.count("published")}, dropped {dropped}, skipped {skipped}, '
            f'latency median {values["latency median ms"]} ms, p95 {values["latency p95 ms"]} ms, '
            f'window delay {values["window delay frames"]} frames\nthis machine: {speed}'
            f'{slower if dropped + skipped else ""}'
        )


def isolated_environment() -> dict[str, str]:
    """Return this process's environment with its own ROS domain, not visible outside this machine.

    Images get lost in the half megabyte of shared memory that Fast DDS has by default, so the package's profile is set
    unless there is one.
    """
    environment = dict(os.environ)
    # Domains up to 101 avoid the system's ephemeral ports; the tests use those from 50 on.
    environment['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 49)
    if environment.get('ROS_DISTRO') == 'humble':
        environment['ROS_LOCALHOST_ONLY'] = '1'
    else:
        environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    for variable in PROFILE_VARIABLES:
        environment.setdefault(variable, str(share_folder() / 'config' / 'fastdds.xml'))
    # Run the programs of this very package, installed or not.
    root = str(Path(__file__).resolve().parents[2])
    environment['PYTHONPATH'] = os.pathsep.join([root, *filter(None, [os.environ.get('PYTHONPATH')])])
    return environment


def run(arguments: argparse.Namespace, ros_arguments: Sequence[str]) -> int:
    """Run the program ``demo``, which writes overlay video, contact sheet and bag of masks; return its exit status."""
    # Check the arguments before loading the model.
    count = open_source(arguments.input, topic=arguments.bag_topic).frame_count if arguments.input else arguments.frames
    params = find_config(Path(arguments.params or share_folder() / 'config' / 'cpu.yaml'))
    if not params.is_file():
        raise UserError(f'there is no file {params}; --params takes a YAML file with parameters')
    out = Path(arguments.out)
    make_folder(out)
    os.environ.update(isolated_environment())
    video, sheet, bag = (out / name for name in ('overlay.mp4', 'contact_sheet.png', 'masks'))
    with ExitStack() as running, ros_node('demo', []) as (node, stop), spinning(node):
        watcher = Watcher(node, stop)

        def start(program: str, *words: str | Path) -> Child:
            command = [sys.executable, '-m', 'moving_object_detector.programs', program, *map(str, words)]
            log = out / ('node.log' if program == 'detect' else f'{program}.log')
            return running.enter_context(Child(program, command, log))

        def heard_by(number: int) -> bool:
            return all(node.count_subscribers(topic) >= number for topic in _RESULTS[:2])

        clip = Path(arguments.input or running.enter_context(TemporaryDirectory()))
        if not arguments.input:
            frames, seed = str(arguments.frames), str(arguments.seed)
            print(f'rendering {frames} frames, seed {seed}', flush=True)
            start('render', clip, *_FLIGHT, '--frames', frames, '--seed', seed).wait()
            clip /= 'frames'
        print('loading the model', flush=True)
        detect = start('detect', '--ros-args', '--params-file', params, *ros_arguments)
        watcher.wait(lambda: watcher.values.get('state') == 'active', 'activation', [detect])
        record = start('record', '--video', video, '--bag', bag, '--overwrite', '--also', _RESULTS[2])
        watcher.wait(lambda: heard_by(1), 'recording', [detect, record])
        if arguments.view:
            view = start('view', '--open')
            print(f'open http://localhost:{PAGE_PORT}/ (playback starts once the page is open)', flush=True)
            watcher.wait(lambda: heard_by(2), 'opening the page', [detect, record, view])
        print(f'playing {clip}', flush=True)
        # With the recording's stamps, the overlay video runs at the recorded speed.
        rate = ('--rate', str(arguments.rate), '--stamp', 'source')
        topic = ('--bag-topic', arguments.bag_topic) if arguments.bag_topic else ()
        play = start('play', clip, *topic, *rate, '--wait-for-subscriber', _FIND_SECONDS)
        watcher.wait_settled(play, [detect, record])
        record.stop()
        detect.stop()
        if not watcher.count('published'):
            raise UserError(f'the detector published no mask; see {detect.log}')
        start('contact_sheet', video, sheet).wait()
    print(f'results: {video}, {sheet}, {bag}')
    print(watcher.summary(count, arguments.rate))
    return 0
