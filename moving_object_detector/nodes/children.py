"""Programs that another program starts, watches and stops."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from moving_object_detector.common.errors import UserError

_PATIENCE = {signal.SIGINT: 20.0, signal.SIGTERM: 5.0, signal.SIGKILL: 5.0}
"""Signals that end a program, in order, and the seconds that each is given."""
_LAST_LINES = 20


class Child:
    """A running program whose output goes to a log file; it does not outlive the context.

    It has a session of its own, so that Ctrl-C in the terminal reaches only the program that started
    it, which then ends its children in the right order.

    Args:
        command: Program and arguments.
        log: File for its output, emptied first.
        environment: Its environment variables.
        name: What to call it, if not as the command.

    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str], name: str = '') -> None:
        self.name = name or Path(command[0]).name
        self._log = log
        with log.open('wb') as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )

    def __enter__(self) -> Child:
        """Return the child itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the program if it still runs."""
        self._end()

    def _end(self) -> None:
        for number, seconds in _PATIENCE.items():
            if self._process.poll() is not None:
                return
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue

    def check_alive(self) -> None:
        """Raise a UserError with the end of the log if the program has ended."""
        if self._process.poll() is not None:
            raise UserError(f'{self.name} ended by itself, {self._failure()}')

    def finished(self) -> bool:
        """Return whether the program has done its work.

        Raises:
            UserError: It has failed; the message holds the end of its log.

        """
        status = self._process.poll()
        if status:
            raise UserError(f'{self.name} failed, {self._failure()}')
        return status is not None

    def wait(self) -> None:
        """Wait for the end of its work; raises as :meth:`finished`."""
        while not self.finished():
            time.sleep(0.05)

    def stop(self) -> None:
        """End the program with Ctrl-C and raise as :meth:`finished` unless it ends well."""
        self._end()
        self.finished()

    def number_before(self, text: str) -> int:
        """Return the last whole number that stands before ``text`` in the output, 0 if there is none."""
        numbers = re.findall(rf'(\d+){re.escape(text)}', self._output())
        return int(numbers[-1]) if numbers else 0

    def _output(self) -> str:
        return self._log.read_text(encoding='utf-8', errors='replace')

    def _failure(self) -> str:
        lines = self._output().splitlines()[-_LAST_LINES:]
        text = '\n'.join(f'  {line}' for line in lines) or '  (it printed nothing)'
        return f'exit status {self._process.returncode}; the end of {self._log}:\n{text}'
