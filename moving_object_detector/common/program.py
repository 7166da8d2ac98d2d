"""Shared by all programs: exit status, argument types, common arguments, and the provenance of results."""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from importlib.metadata import distributions
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final

from moving_object_detector.common.errors import UserError

TOPIC: Final = 'camera/image_raw'
"""Default image topic."""

PACKAGES: Final = ('torch', 'openvino', 'opencv-python-headless', 'numpy', 'pydensecrf2', 'rosbags')


def run_program(body: Callable[[], int]) -> int:
    """Run ``body`` and return its exit status: 2 after a UserError, 130 after Ctrl-C."""
    if isinstance(sys.stdout, TextIOWrapper):
        # Programs print paths, which need not be UTF-8.
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        return body()
    except UserError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    except KeyboardInterrupt:
        return 130


def add_settings(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add ``--set NAME=VALUE ...``, which is repeatable."""
    parser.add_argument('--set', nargs='+', action='extend', default=[], metavar='NAME=VALUE', help=help_text)


def positive_float(text: str) -> float:
    """Parse a number above zero."""
    return _parsed(float(text), text, 'above 0', least=math.ulp(0.0))


def seconds(text: str) -> float:
    """Parse a duration in seconds, zero or more."""
    return _parsed(float(text), text, 'a duration in seconds', least=0.0)


def positive_int(text: str) -> int:
    """Parse a whole number above zero."""
    return int(_parsed(int(text), text, 'above 0', least=1))


def _parsed(value: float, text: str, what: str, least: float) -> float:
    if not least <= value < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is not {what}')
    return value


def add_source_arguments(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add ``input``, or a list ``inputs`` if ``several``, and the options that :func:`source_of` reads."""
    name, number = ('inputs', '+') if several else ('input', None)
    what = 'folder of frames, video file, or bag (ROS 2 or ROS 1)'
    parser.add_argument(name, metavar='INPUT', nargs=number, help=what)
    topic = 'image topic of a bag that has several'
    # A launch file passes an empty text for an argument that is not given.
    parser.add_argument('--bag-topic', metavar='TOPIC', type=lambda text: text or None, help=topic)
    rate = "frames per second, instead of the input's own timing (a folder has none: 24)"
    parser.add_argument('--fps', type=positive_float, help=rate)


def _revision() -> str:
    """Return the commit of the running checkout, with ``+`` if it has changes; empty outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / '.git').exists():
        return ''
    describe = ['git', '-C', str(folder), 'describe', '--always', '--abbrev=12', '--exclude=*', '--dirty=+']
    try:
        return subprocess.run(describe, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ''


def _processor() -> str:
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace')
    except OSError:
        text = ''
    model = re.search(r'^model name\s*:\s*(.*\S)', text, re.MULTILINE)
    return model[1] if model else platform.machine()


def provenance(program: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return command, start time, versions, git revision and machine of this run of a program."""
    import torch

    installed = {found.metadata['Name']: found.version for found in distributions()}
    machine = f'{_processor()}, {len(os.sched_getaffinity(0))} cores, {sys.platform}'
    if torch.cuda.is_available():
        machine += f', {torch.cuda.get_device_name()}'
    return {
        'command': shlex.join([program, *arguments]),
        'started': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'versions': {'python': platform.python_version()}
        | {name: installed[name] for name in PACKAGES if name in installed},
        'revision': _revision(),
        'machine': machine,
    }
