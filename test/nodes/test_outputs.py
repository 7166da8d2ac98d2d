"""Regions as messages, by numbers worked out by hand."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from std_msgs.msg import Header

from moving_object_detector.detection.regions import Region
from moving_object_detector.nodes.outputs import detection_format

HEADER = Header(frame_id='camera')
HEADER.stamp.sec = 5
REGIONS = [Region(10, 20, 30, 41, 900, 0.75), Region(0, 0, 1, 1, 1, 0.5)]


class Record(SimpleNamespace):
    """Stands for a message class of vision_msgs, which has no wheel: takes and makes any field."""

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        value = [] if name in ('detections', 'results') else Record()
        setattr(self, name, value)
        return value


@pytest.fixture
def vision_msgs(monkeypatch):
    """The installed package, or one with stand-ins for its classes."""
    try:
        from vision_msgs import msg
    except ImportError:
        msg = ModuleType('vision_msgs.msg')
        for name in ('Detection2D', 'Detection2DArray', 'ObjectHypothesisWithPose'):
            setattr(msg, name, type(name, (Record,), {'id': ''}))
        monkeypatch.setitem(sys.modules, 'vision_msgs', ModuleType('vision_msgs'))
        monkeypatch.setitem(sys.modules, 'vision_msgs.msg', msg)
    return msg


def test_boxes_and_scores(vision_msgs):
    kind, build = detection_format()
    assert kind is vision_msgs.Detection2DArray
    message = build(REGIONS, HEADER)
    assert message.header == HEADER
    box, dot = message.detections
    # Centre and size, edges at 10, 20, 40 and 61.
    assert (box.bbox.center.position.x, box.bbox.center.position.y) == (25.0, 40.5)
    assert (box.bbox.size_x, box.bbox.size_y) == (30.0, 41.0)
    assert (dot.bbox.center.position.x, dot.bbox.size_x) == (0.5, 1.0)
    (result,) = box.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ('moving', 0.75)
    assert box.header == dot.header == HEADER


def test_no_region_claims_an_identity_over_time(vision_msgs):
    _, build = detection_format()
    assert [one.id for one in build(REGIONS, HEADER).detections] == ['', '']


def test_without_vision_msgs_there_is_no_other_type(monkeypatch):
    monkeypatch.setitem(sys.modules, 'vision_msgs.msg', None)
    assert detection_format() is None
