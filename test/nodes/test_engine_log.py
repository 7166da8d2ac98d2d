from __future__ import annotations

import logging

import pytest

from moving_object_detector.nodes.engine_log import core_log


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


def test_what_the_core_says_reaches_the_nodes_log_while_it_loads():
    logger, lines = logging.getLogger('moving_object_detector.engines.cache'), Lines()
    with core_log(lines):
        logger.debug('nobody wants this')
        logger.info('%s: OpenVINO builds an engine', 'generator')
        logger.warning('the cached engine is not used')
        logger.error('no')
    logger.warning('later')
    assert lines.said == [
        ('info', 'generator: OpenVINO builds an engine'),
        ('warning', 'the cached engine is not used'),
        ('error', 'no'),
    ]


def test_an_error_while_loading_leaves_logging_as_it_was():
    source = logging.getLogger('moving_object_detector')
    before = source.level, source.propagate, list(source.handlers)
    with pytest.raises(ValueError, match='weights'), core_log(Lines()):
        raise ValueError('weights')
    assert (source.level, source.propagate, list(source.handlers)) == before
