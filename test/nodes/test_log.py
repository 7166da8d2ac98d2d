from __future__ import annotations

import logging

import pytest

from moving_object_detector.nodes.runtime import Throttle, bridged, kind

LOGGER = logging.getLogger('moving_object_detector.engines.cache')


class Lines:
    """A ROS logger's three methods."""

    def __init__(self):
        self.said = []

    def info(self, text):
        self.said.append(('info', text))

    def warning(self, text):
        self.said.append(('warning', text))

    def error(self, text):
        self.said.append(('error', text))


@pytest.fixture
def said():
    """What passes, and the clock in seconds, as a list of one."""
    lines, clock = [], [0.0]
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    handler.addFilter(Throttle(lambda: clock[0]))
    logger = logging.getLogger('moving_object_detector.test_log')
    logger.addHandler(handler)
    yield logger, lines, clock
    logger.removeHandler(handler)


def test_what_the_package_says_reaches_the_nodes_log():
    lines = Lines()
    with bridged(lines):
        LOGGER.debug('nobody wants this')
        LOGGER.info('%s: OpenVINO builds an engine', 'generator')
        LOGGER.warning('the cached engine is not used')
        LOGGER.error('no')
    LOGGER.warning('later')
    assert lines.said == [
        ('info', 'generator: OpenVINO builds an engine'),
        ('warning', 'the cached engine is not used'),
        ('error', 'no'),
    ]


def test_the_words_of_an_exception_are_escaped_in_its_trace():
    lines = Lines()
    with bridged(lines):
        try:
            raise ValueError('one\x1b[31m')
        except ValueError:
            LOGGER.exception('please report this')
    ((severity, text),) = lines.said
    assert severity == 'error'
    assert text.startswith('please report this\nTraceback')
    assert 'ValueError: one\\x1b[31m' in text
    assert '\x1b' not in text


def test_an_error_leaves_logging_as_it_was():
    source = logging.getLogger('moving_object_detector')
    before = source.level, source.propagate, list(source.handlers)
    with pytest.raises(ValueError, match='weights'), bridged(Lines()):
        raise ValueError('weights')
    assert (source.level, source.propagate, list(source.handlers)) == before


def test_each_kind_is_said_once_in_an_interval_with_how_many_were_held_back(said):
    logger, lines, clock = said
    step, data = {'extra': kind('step')}, {'extra': kind('data')}
    logger.warning('step is %d', 1, **step)
    logger.warning('step is %d', 2, **step)
    logger.warning('data is short', **data)
    clock[0] = 4.9
    logger.warning('step is %d', 3, **step)
    assert lines == ['step is 1', 'data is short']
    clock[0] = 5.0
    logger.warning('step is %d', 4, **step)
    logger.warning('step is %d', 5, **step)
    assert lines[2:] == ['step is 4 (and 2 more like it)']
    clock[0] = 20.0
    logger.warning('step is %d', 6, **step)
    logger.warning('data is shorter', **data)
    logger.warning('no kind')
    logger.warning('no kind')
    assert lines[3:] == ['step is 6 (and 1 more like it)', 'data is shorter', 'no kind', 'no kind']


def test_a_reminder_does_not_count(said):
    logger, lines, clock = said
    for second in range(21):
        clock[0] = float(second)
        logger.warning('no image for %d s', second, extra=kind('silence', 10.0, counted=False))
    assert lines == ['no image for 0 s', 'no image for 10 s']


def test_the_interval_doubles_while_it_goes_on_and_starts_anew_after_a_pause(said):
    logger, lines, clock = said
    moments = [*range(2000), *range(2011, 2030)]
    for clock[0] in map(float, moments):
        logger.warning('%d', clock[0], extra=kind('silence', 10.0, counted=False))
    # 10, 20, ... 160 seconds apart, then five minutes; at 2011 nothing had come for more than ten seconds.
    assert [int(line) for line in lines] == [0, 10, 30, 70, 150, 310, 610, 910, 1210, 1510, 1810, 2011, 2021]
