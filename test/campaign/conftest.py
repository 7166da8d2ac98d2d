"""What the campaigns share: the real node, and how long to go on.

``CAMPAIGN=30 pytest test/campaign`` tries thirty times as much as by default; ``CAMPAIGN_SEED=100`` lets the storms
begin at that seed, so that another run tries others.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

# For detect_bench: pytest imports the test modules without the folders that they need.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / 'nodes')]


@pytest.fixture(scope='session')
def effort() -> float:
    """How many times the default number of attempts."""
    return float(os.environ.get('CAMPAIGN', '1'))


@pytest.fixture(scope='session')
def first_seed() -> int:
    """Seed of the first storm."""
    return int(os.environ.get('CAMPAIGN_SEED', '0'))


@pytest.fixture(scope='session')
def seconds(effort) -> float:
    """Seconds that an attack on the live node lasts."""
    return 10 * effort


@pytest.fixture(scope='module')
def start_detect(ros_environment):
    """Start ``detect`` with the arguments of :class:`detect_bench.Bench`; all are ended with the module."""
    from detect_bench import Bench

    with ExitStack() as running:
        yield lambda *arguments, **options: running.enter_context(Bench(ros_environment, *arguments, **options))
