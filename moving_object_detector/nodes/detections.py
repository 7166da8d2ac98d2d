"""Regions as vision_msgs/Detection2DArray, the type of ``~/detections`` on every machine that has vision_msgs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from std_msgs.msg import Header

from moving_object_detector.detection.regions import Region

LABEL = 'moving'
MISSING = (
    'vision_msgs is not installed, so ~/detections is not published (~/overlay shows the boxes); '
    'to have it: apt install ros-$ROS_DISTRO-vision-msgs'
)


def detection_format() -> tuple[type, Callable[[Sequence[Region], Header], Any]] | None:
    """Return the type of ``~/detections`` and what makes such a message from regions; None without vision_msgs."""
    try:
        from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose
    except ImportError:
        return None

    def detections(regions: Sequence[Region], header: Header) -> Any:
        message = Detection2DArray(header=header)
        for region in regions:
            # The id names an object over time, and regions are not tracked: it stays empty.
            detection = Detection2D(header=header)
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

    return Detection2DArray, detections
