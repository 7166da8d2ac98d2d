"""Regions as messages: vision_msgs where it is installed, markers elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from moving_object_detector.detection.regions import Region

LABEL = 'moving'
MARKER_COLOUR = ColorRGBA(r=1.0, g=0.25, b=0.1, a=1.0)


def markers(regions: Sequence[Region], header: Header) -> MarkerArray:
    """Return the boxes as line strips in pixels of the image; text is the score.

    The first marker deletes those of earlier frames, so that a viewer shows only what is there.
    """
    message = MarkerArray()
    message.markers.append(Marker(header=header, ns=LABEL, action=Marker.DELETEALL))
    for number, region in enumerate(regions):
        left, top = float(region.x), float(region.y)
        right, bottom = left + region.width, top + region.height
        corners = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
        marker = Marker(header=header, ns=LABEL, id=number, type=Marker.LINE_STRIP, action=Marker.ADD)
        marker.points = [Point(x=x, y=y, z=0.0) for x, y in corners]
        marker.text = f'{region.score:.3f}'
        marker.scale.x = 2.0
        marker.color = MARKER_COLOUR
        marker.pose.orientation.w = 1.0
        message.markers.append(marker)
    return message


def _vision_detections(regions: Sequence[Region], header: Header) -> Any:
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    message = Detection2DArray(header=header)
    for number, region in enumerate(regions):
        detection = Detection2D(header=header, id=str(number))
        detection.bbox.center.position.x = region.x + region.width / 2
        detection.bbox.center.position.y = region.y + region.height / 2
        detection.bbox.size_x = float(region.width)
        detection.bbox.size_y = float(region.height)
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = LABEL
        hypothesis.hypothesis.score = region.score
        detection.results.append(hypothesis)
        message.detections.append(detection)
    return message


def detection_format() -> tuple[type, Callable[[Sequence[Region], Header], Any]]:
    """Return the type of ``~/detections`` on this machine, and what makes such a message from regions."""
    try:
        from vision_msgs.msg import Detection2DArray
    except ImportError:
        return MarkerArray, markers
    return Detection2DArray, _vision_detections
