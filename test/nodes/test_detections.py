"""Regions as messages, by numbers worked out by hand."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from moving_object_detector.detection.regions import Region
from moving_object_detector.nodes.detections import detection_format, markers

HEADER = Header(frame_id='camera')
HEADER.stamp.sec = 5
REGIONS = [Region(10, 20, 30, 41, 900, 0.75), Region(0, 0, 1, 1, 1, 0.5)]


def test_markers():
    first, box, dot = markers(REGIONS, HEADER).markers
    assert first.action == Marker.DELETEALL
    assert [(point.x, point.y) for point in box.points] == [(10, 20), (40, 20), (40, 61), (10, 61), (10, 20)]
    assert [(point.x, point.y) for point in dot.points] == [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]
    assert (box.text, dot.text) == ('0.750', '0.500')
    assert (box.id, dot.id) == (0, 1)
    assert all(marker.header == HEADER and marker.ns == 'moving' for marker in (first, box, dot))
    assert len(markers([], HEADER).markers) == 1  # what was shown before goes


def test_markers_are_what_there_is_without_vision_msgs(monkeypatch):
    monkeypatch.setitem(sys.modules, 'vision_msgs.msg', None)
    assert detection_format() == (MarkerArray, markers)


class Record(SimpleNamespace):
    """Stands for a message class of vision_msgs, which has no wheel: takes and makes any field."""

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        value = [] if name in ('detections', 'results') else Record()
        setattr(self, name, value)
        return value


def test_vision_msgs_where_it_is_installed(monkeypatch):
    package, module = ModuleType('vision_msgs'), ModuleType('vision_msgs.msg')
    for name in ('Detection2D', 'Detection2DArray', 'ObjectHypothesisWithPose'):
        setattr(module, name, type(name, (Record,), {}))
    monkeypatch.setitem(sys.modules, 'vision_msgs', package)
    monkeypatch.setitem(sys.modules, 'vision_msgs.msg', module)
    kind, build = detection_format()
    assert kind is module.Detection2DArray
    message = build(REGIONS, HEADER)
    assert message.header == HEADER
    box, dot = message.detections
    # Centre and size, edges at 10, 20, 40 and 61.
    assert (box.bbox.center.position.x, box.bbox.center.position.y) == (25.0, 40.5)
    assert (box.bbox.size_x, box.bbox.size_y) == (30.0, 41.0)
    assert (dot.bbox.center.position.x, dot.bbox.size_x) == (0.5, 1.0)
    (result,) = box.results
    assert (result.hypothesis.class_id, result.hypothesis.score) == ('moving', 0.75)
    assert (box.id, dot.id) == ('0', '1')
    assert box.header == dot.header == HEADER
