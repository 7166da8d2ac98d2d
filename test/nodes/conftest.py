"""The real ``detect`` for the tests of a module."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

# For detect_bench: pytest imports the test modules without the folder that they are in.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope='module')
def start_detect(ros_environment):
    """Start ``detect`` with the arguments of :class:`detect_bench.Bench`; all are ended with the module."""
    from detect_bench import Bench

    with ExitStack() as running:
        yield lambda *arguments, **options: running.enter_context(Bench(ros_environment, *arguments, **options))
