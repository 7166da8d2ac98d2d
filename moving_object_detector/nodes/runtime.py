"""Shared by all ROS programs: arguments, signals, context, and Python's logging passed to the ROS log."""

from __future__ import annotations

import logging
import math
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

POLL_SECONDS: Final = 0.05
"""Longest time until Ctrl-C is noticed."""
END_SECONDS: Final = 2.0
"""Longest wait for callbacks to end; one that loads a model takes longer and is abandoned."""


class Stop(threading.Event):
    """An event that a signal handler may set at any moment.

    ``threading.Event`` may not: if the signal arrives while the main thread enters ``wait``, ``set`` waits for a lock
    that the same thread holds, or nobody notices it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stopped = False

    def set(self) -> None:
        """Set it."""
        self._stopped = True

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._stopped

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, or for ``timeout`` seconds; return whether it is."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        while not self._stopped and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, POLL_SECONDS))
        return self._stopped


def split_arguments(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Separate a program's own arguments from ROS's: from ``--ros-args`` to ``--``, both included."""
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
    """Run a ROS program as :func:`run_program` does, but with exit status 0 after Ctrl-C."""

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


PROFILE_VARIABLES: Final = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
"""Environment variables with the profile of Fast DDS, up to version 2 and from 3 on."""


@contextmanager
def ros_node(
    name: str, ros_arguments: Sequence[str], make: Callable[[str], Node] | None = None, *, remap: Sequence[str] = ()
) -> Iterator[tuple[Node, threading.Event]]:
    """Create a node (by ``make``, else a plain one) that lives as long as the context; the caller spins it.

    Yields the node and an event that Ctrl-C and SIGTERM set, so that no write is interrupted. Rules ``from:=to`` in
    ``remap`` apply unless the arguments remap the same name. Raises UserError if ROS rejects the arguments or cannot
    log, or a Fast DDS profile does not exist.
    """
    for variable in PROFILE_VARIABLES:
        profile = os.environ.get(variable)
        uses_it = 'fastrtps' in os.environ.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp')
        if profile and uses_it and not Path(profile).is_file():
            raise UserError(
                f'{variable} is {shown(profile)}, which is no file: Fast DDS would use its defaults; set it (or '
                'dds_profile:= of ros2 launch) to the full path of a profile, or unset it'
            )
    stop = Stop()
    # First of all: Ctrl-C during an import would leave it half done.
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        import rclpy
        from rclpy.logging import get_logger
        from rclpy.signals import SignalHandlerOptions

        # After the user's rules: the first match applies.
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
            # Ctrl-C comes twice, from the terminal and from ros2 launch; the second must not interrupt the shutdown.
            signal.signal(number, signal.SIG_IGN if stop.is_set() else handler)


def topic_name(node: Node, name: str, what: str = '') -> str:
    """Return the full, remapped name of a topic (or node); raises UserError, which names ``what``, if it is not one."""
    try:
        return str(node.resolve_topic_name(name))
    except Exception as error:
        reason = foreign(str(error).removeprefix('failed to resolve name: ').partition(', at ')[0], 200)
        raise UserError(f'{what}{shown(name)} is not a valid name: {reason}') from error


@contextmanager
def spinning(node: Node, threads: int = 1) -> Iterator[None]:
    """Run the node's callbacks in ``threads`` threads while the context lives."""
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
                # A race in rclpy: one thread destroyed an entity that another was about to wait for.
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
        # rclpy does not wait, but destroys the guard condition that starting callbacks trigger: they print errors.
        deadline = time.monotonic() + END_SECONDS
        while not all(future.done() for future in getattr(executor, '_futures', ())) and time.monotonic() < deadline:
            time.sleep(0.01)
        executor.shutdown()


SAID_AGAIN: Final = 10.0
"""Seconds between repetitions of a persistent problem in the log."""


class Bridge(logging.Handler):
    """Passes log records to a ROS logger; of those with an ``extra`` ``kind``, one per kind in :data:`SAID_AGAIN`."""

    def __init__(self, logger: Any, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.logger = logger
        self._now = now
        self._last_logged: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        kind, now = getattr(record, 'kind', None), self._now()
        if kind is not None:
            if now - self._last_logged.get(kind, -SAID_AGAIN) < SAID_AGAIN:
                return
            self._last_logged[kind] = now
        # Escape each line of a traceback: exception messages may contain anything.
        text = '\n'.join(foreign(line, LONGEST_MESSAGE) for line in self.format(record).split('\n'))
        # rclpy requires a call site for each severity.
        if record.levelno >= logging.ERROR:
            self.logger.error(text)
        elif record.levelno >= logging.WARNING:
            self.logger.warning(text)
        else:
            self.logger.info(text)


@contextmanager
def bridged(logger: Any) -> Iterator[Bridge]:
    """Pass the package's log records from INFO on to a ROS logger, which may be replaced later."""
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
