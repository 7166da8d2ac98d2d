from __future__ import annotations

import logging

import pytest

from moving_object_detector.nodes.runtime import Bridge, bridged

LOGGER = logging.getLogger('moving_object_detector.engines.torch_engine')


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


def test_what_the_package_says_reaches_the_nodes_log():
    lines = Lines()
    with bridged(lines):
        LOGGER.debug('nobody wants this')
        LOGGER.info('%s: %s builds an engine', 'generator', 'torch_tensorrt')
        LOGGER.warning('this may take minutes')
        LOGGER.error('no')
    LOGGER.warning('later')
    assert lines.said == [
        ('info', 'generator: torch_tensorrt builds an engine'),
        ('warning', 'this may take minutes'),
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


def test_each_kind_is_said_once_in_ten_seconds():
    lines, clock = Lines(), [0.0]
    bridge = Bridge(lines, lambda: clock[0])
    logger = logging.getLogger('moving_object_detector.test_log')
    logger.addHandler(bridge)
    step, data = {'extra': {'kind': 'step'}}, {'extra': {'kind': 'data'}}
    for second in range(21):
        clock[0] = float(second)
        logger.warning('step is %d', second, **step)
    logger.warning('data is short', **data)
    logger.warning('no kind')
    logger.warning('no kind')
    logger.removeHandler(bridge)
    said = [text for _, text in lines.said]
    assert said == ['step is 0', 'step is 10', 'step is 20', 'data is short', 'no kind', 'no kind']
