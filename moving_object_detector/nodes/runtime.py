"""Starting and ending a ROS program: arguments, signals, context."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.program import run_program
from moving_object_detector.nodes.log import bridged

if TYPE_CHECKING:
    from rclpy.node import Node

log = logging.getLogger(__name__)


def split_arguments(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Separate a program's own arguments from ROS's, which stand between ``--ros-args`` and ``--`` and keep these."""
    own: list[str] = []
    ros: list[str] = []
    inside = False
    for argument in sys.argv[1:] if argv is None else argv:
        if argument == '--ros-args':
            inside = True
        (ros if inside else own).append(argument)
        if inside and argument == '--':
            inside = False
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

    Yields it, and an event that is set by Ctrl-C and by SIGTERM: from here on nothing is interrupted in the middle of
    a write. Rules such as ``from:=to`` in ``remap`` hold where the arguments have none. Raises UserError where ROS
    refuses the arguments, or cannot write its log.
    """
    stop = threading.Event()
    # First of all: Ctrl-C in the middle of an import would leave it half done.
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        import rclpy
        from rclpy.logging import get_logger

        # After the user's own rules, of which the first that fits counts.
        rules = [argument for rule in remap for argument in ('--ros-args', '-r', rule)]
        with bridged(get_logger(name)) as bridge:
            node = _made(name, ros_arguments, rules, make or rclpy.create_node)
            bridge.logger = node.get_logger()
            try:
                yield node, stop
            finally:
                node.destroy_node()
                rclpy.try_shutdown()
    finally:
        for number, handler in previous.items():
            # Ctrl-C comes twice, from the terminal and from ros2 launch; the end must not be interrupted by itself.
            signal.signal(number, signal.SIG_IGN if stop.is_set() else handler)


def _made(name: str, given: Sequence[str], rules: Sequence[str], make: Callable[[str], Node]) -> Node:
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    try:
        rclpy.init(args=[name, *given, *rules], signal_handler_options=SignalHandlerOptions.NO)
        return make(name)
    except (RuntimeError, ValueError) as error:
        rclpy.try_shutdown()
        reason = foreign(error, 300)
        if 'log directory' in reason:
            raise UserError(f'ROS cannot write its log; set ROS_LOG_DIR to another folder ({reason})') from error
        raise UserError(f"ROS does not accept '{foreign(' '.join(given), 200)}': {reason}") from error


@contextmanager
def spinning(node: Node, threads: int = 1) -> Iterator[None]:
    """Serve the node's callbacks in ``threads`` threads while the context lives."""
    from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
    from rclpy.impl.implementation_singleton import rclpy_implementation as implementation

    executor = SingleThreadedExecutor() if threads == 1 else MultiThreadedExecutor(threads)
    executor.add_node(node)
    ended = threading.Event()

    def spin() -> None:
        try:
            executor.spin()
        except implementation.InvalidHandle:
            # Something was destroyed by one thread while another was about to wait for it: rclpy's own race.
            return
        except Exception:
            if not ended.is_set():
                log.exception('a callback failed; please report this')
        else:
            ended.set()

    def serve() -> None:
        while not ended.is_set():
            spin()

    thread = threading.Thread(target=serve, name='spin', daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        executor.shutdown()
        thread.join()
