"""What every program that talks over ROS shares: arguments, signals and context; Python's logging in the node's log."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moving_object_detector.common.errors import LONGEST_MESSAGE, UserError, foreign, shown
from moving_object_detector.common.files import PACKAGE
from moving_object_detector.common.program import run_program

if TYPE_CHECKING:
    from rclpy.node import Node

log = logging.getLogger(__name__)

END_SECONDS: Final = 2.0
"""For callbacks to end; one that loads a model takes longer, and is not waited for."""


def split_arguments(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Separate a program's own arguments from ROS's, which stand between ``--ros-args`` and ``--`` and keep these."""
    own: list[str] = []
    ros: list[str] = []
    now = own
    for argument in sys.argv[1:] if argv is None else argv:
        now = ros if argument == '--ros-args' else now
        now.append(argument)
        if argument == '--':
            now = own
    return own, ros


def run_node(body: Callable[[], int]) -> int:
    """Run a program that is a ROS node: as :func:`run_program`, but Ctrl-C at any moment is no failure."""

    def interruptible() -> int:
        try:
            return body()
        except KeyboardInterrupt:
            return 0
        except ModuleNotFoundError as error:
            if error.name is not None and error.name.partition('.')[0] == 'rclpy':
                raise UserError('ROS 2 is not in this environment: source its setup.bash, or install it') from error
            raise

    return run_program(interruptible)


@contextmanager
def ros_node(
    name: str, ros_arguments: Sequence[str], make: Callable[[str], Node] | None = None, *, remap: Sequence[str] = ()
) -> Iterator[tuple[Node, threading.Event]]:
    """Make a node, a plain one unless ``make`` does, that lives as long as the context; the caller spins it.

    Yields it, and an event that Ctrl-C and SIGTERM set, so that nothing is interrupted in the middle of a write. Rules
    such as ``from:=to`` in ``remap`` hold where the arguments have none. UserError where ROS refuses these or cannot
    log, or a profile for Fast DDS does not exist.
    """
    for variable in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
        profile = os.environ.get(variable)
        if profile and not Path(profile).is_file():
            raise UserError(
                f'{variable} is {shown(profile)}, which is no file: Fast DDS would use its defaults; give '
                'dds_profile:= (ros2 launch) or the variable the full path of a profile'
            )
    stop = threading.Event()
    # First of all: Ctrl-C in the middle of an import would leave it half done.
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        import rclpy
        from rclpy.logging import get_logger
        from rclpy.signals import SignalHandlerOptions

        # After the user's own rules, of which the first that fits counts.
        rules = [argument for rule in remap for argument in ('--ros-args', '-r', rule)]
        with bridged(get_logger(name)) as bridge, ExitStack() as ending:
            ending.callback(rclpy.try_shutdown)
            try:
                rclpy.init(args=[name, *ros_arguments, *rules], signal_handler_options=SignalHandlerOptions.NO)
                node = (make or rclpy.create_node)(name)
            except (RuntimeError, ValueError) as error:
                reason = foreign(error, 300)
                if 'log directory' in reason:
                    remedy = 'set ROS_LOG_DIR to another folder'
                    raise UserError(f'ROS cannot write its log; {remedy} ({reason})') from error
                raise UserError(f"ROS does not accept '{foreign(' '.join(ros_arguments), 200)}': {reason}") from error
            ending.callback(node.destroy_node)
            bridge.logger = node.get_logger()
            yield node, stop
    finally:
        for number, handler in previous.items():
            # Ctrl-C comes twice, from the terminal and from ros2 launch; the end must not be interrupted by itself.
            signal.signal(number, signal.SIG_IGN if stop.is_set() else handler)


@contextmanager
def spinning(node: Node, threads: int = 1) -> Iterator[None]:
    """Serve the node's callbacks in ``threads`` threads while the context lives."""
    from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
    from rclpy.impl.implementation_singleton import rclpy_implementation as implementation

    executor = SingleThreadedExecutor() if threads == 1 else MultiThreadedExecutor(threads)
    executor.add_node(node)
    ended = threading.Event()

    def serve() -> None:
        while node.context.ok() and not ended.is_set():
            try:
                executor.spin_once()
            except implementation.InvalidHandle:  # noqa: PERF203 (the next callback may do)
                # Something was destroyed by one thread while another was about to wait for it: rclpy's own race.
                continue
            except Exception:
                if not ended.is_set():
                    log.exception('a callback failed; please report this')

    thread = threading.Thread(target=serve, name='spin', daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        executor.create_task(int)  # wakes it
        thread.join()
        # rclpy does not wait, and takes away what callbacks trigger when they begin: they would print that.
        deadline = time.monotonic() + END_SECONDS
        while not all(future.done() for future in getattr(executor, '_futures', ())) and time.monotonic() < deadline:
            time.sleep(0.01)
        executor.shutdown()


SAID_AGAIN: Final = 10.0
"""Seconds after which a trouble that lasts is said again: at once, but not thirty times a second."""


class Bridge(logging.Handler):
    """Passes records on to a ROS logger; those with an ``extra`` ``kind`` once in :data:`SAID_AGAIN` for each kind."""

    def __init__(self, logger: Any, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.logger = logger
        self._now = now
        self._said: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        kind, now = getattr(record, 'kind', None), self._now()
        if kind is not None:
            if now - self._said.get(kind, -SAID_AGAIN) < SAID_AGAIN:
                return
            self._said[kind] = now
        # A trace has lines of its own; what an exception says may hold anything.
        text = '\n'.join(foreign(line, LONGEST_MESSAGE) for line in self.format(record).split('\n'))
        # A line for each severity, since rclpy ties one to the place of the call.
        if record.levelno >= logging.ERROR:
            self.logger.error(text)
        elif record.levelno >= logging.WARNING:
            self.logger.warning(text)
        else:
            self.logger.info(text)


@contextmanager
def bridged(logger: Any) -> Iterator[Bridge]:
    """Pass on to a ROS logger, which may be changed later, what the package's modules say from information upwards."""
    source, handler = logging.getLogger(PACKAGE), Bridge(logger)
    level, propagate = source.level, source.propagate
    source.addHandler(handler)
    source.setLevel(logging.INFO)
    source.propagate = False
    try:
        yield handler
    finally:
        source.removeHandler(handler)
        source.setLevel(level)
        source.propagate = propagate
