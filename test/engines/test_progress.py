from __future__ import annotations

import logging
import time

import pytest

from moving_object_detector.engines.cache import building


def test_a_short_build_says_when_it_is_over(caplog):
    caplog.set_level(logging.INFO)
    with building('generator', 'TensorRT'):
        pass
    (line,) = caplog.records
    assert line.getMessage() == 'generator: built in 0.0 s'
    assert line.levelno == logging.INFO


def test_a_long_one_gives_signs_of_life_where_nobody_has_set_up_logging(caplog):
    with building('generator', 'TensorRT', interval=0.05):
        deadline = time.monotonic() + 20
        while len(caplog.messages) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert caplog.messages[0].startswith('generator: TensorRT is still building, ')
    assert caplog.messages[-1].startswith('generator: built in ')


def test_one_that_fails_is_not_called_built(caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(RuntimeError), building('generator', 'TensorRT'):
        raise RuntimeError
    assert not caplog.messages
