"""A process for each case, so that memory and threads are its own; seen from the parent."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

from moving_object_detector.bench.cases import Case, Variant
from moving_object_detector.bench.process import Turn, probe, work


class UnableError(Exception):
    """A case that cannot run.

    Args:
        reason: Why.
        expected: Whether it is a property of this machine; else something is broken.

    """

    def __init__(self, reason: str, *, expected: bool) -> None:
        super().__init__(reason)
        self.expected = expected


class Child:
    """A process that answers through a pipe.

    Args:
        target: What it runs, with the pipe as first argument.
        arguments: The others.

    """

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        # Spawned: a fork would inherit the parent's memory and the locks of its threads.
        context = get_context('spawn')
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        # Ctrl-C is for the parent, which ends its children: they inherit that they do not see it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def ask(self, question: object) -> Any:
        """Send something and return the answer.

        Raises:
            UnableError: It failed.

        """
        try:
            self._pipe.send(question)
        except ConnectionError as error:
            raise _ended() from error
        return self.answer()

    def answer(self) -> Any:
        """Wait for an answer.

        Raises:
            UnableError: It failed.

        """
        try:
            kind, value = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise _ended() from error
        if kind != 'done':
            raise UnableError(value, expected=kind == 'refused')
        return value

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.join()
        self._pipe.close()


def _ended() -> UnableError:
    return UnableError('its process ended unasked; was there enough memory?', expected=False)


class Worker:
    """A process that does one case when it is told to.

    Args:
        case: What it does.
        images: File of frames.

    """

    def __init__(self, case: Case, images: Path) -> None:
        self.case = case
        self._child = Child(work, case, images)

    def ready(self) -> dict[str, Any]:
        """Wait until it is warm; return what it is.

        Raises:
            UnableError: It cannot run.

        """
        return cast('dict[str, Any]', self._child.answer())

    def turn(self, seconds: float) -> Turn:
        """Let it work for about that long, at least once.

        Raises:
            UnableError: It failed.

        """
        return cast('Turn', self._child.ask(seconds))

    def memory(self) -> dict[str, float]:
        """Return the most memory that it had so far, in MB: ``resident``, and on a GPU ``gpu``.

        Raises:
            UnableError: It failed.

        """
        return cast('dict[str, float]', self._child.ask(None))

    def close(self) -> None:
        """End it."""
        self._child.close()


def refusals(device: str, variants: Sequence[Variant]) -> dict[Variant, str]:
    """Return which engines do not run on a device, and why; asked in a process of its own.

    Args:
        device: As in the options.
        variants: The engines in question.

    Raises:
        UnableError: The question cannot be answered.

    """
    child = Child(probe, device, tuple(variants))
    try:
        return cast('dict[Variant, str]', child.answer())
    finally:
        child.close()
