"""The topics of the results; a result without subscribers is not built."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from builtin_interfaces.msg import Time
from rclpy.lifecycle import LifecycleNodeMixin, LifecyclePublisher
from sensor_msgs.msg import Image
from std_msgs.msg import Float64, Header

from moving_object_detector.common.errors import UserError
from moving_object_detector.detection.regions import Region, draw_overlay
from moving_object_detector.nodes.messages import image_message
from moving_object_detector.nodes.parameters import checked_overrides, overridable

if TYPE_CHECKING:
    from moving_object_detector.detection.result import Result

log = logging.getLogger(__name__)

IMAGE_RESULTS = ('mask', 'probability', 'overlay', 'flow')
MISSING = (
    'vision_msgs is not installed, so ~/detections is not published (~/overlay shows the boxes); '
    'to get it: apt install ros-$ROS_DISTRO-vision-msgs'
)


class Outputs:
    """Publishers of results and timings, silent until the node is active. UserError for wrong ``qos_overrides``."""

    def __init__(self, node: LifecycleNodeMixin) -> None:
        self._node = node
        self._make: dict[str, Callable[[Result, Header], Any]] = {
            'mask': lambda r, h: image_message(r.mask, 'mono8', h),
            'probability': lambda r, h: image_message(r.probability, '32FC1', h),
            'overlay': lambda r, h: image_message(draw_overlay(r.image, r.mask, r.regions), 'bgr8', h),
            'flow': lambda r, h: image_message(r.flow, '32FC2', h),
        }
        kinds: dict[str, type] = dict.fromkeys(self._make, Image)
        detections = detection_format()
        if detections is None:
            log.info(MISSING)
        else:
            kinds['detections'], build = detections
            self._make['detections'] = lambda r, h: build(r.regions, h)
        times = ('processing_time', 'pipeline_latency', 'cyclic_time', 'window_delay')
        kinds |= {f'debug/{name}_ms': Float64 for name in times}
        self._publishers: dict[str, LifecyclePublisher] = {}
        try:
            for name, kind in kinds.items():
                with checked_overrides(node, node.resolve_topic_name(f'~/{name}')):
                    self._publishers[name] = node.create_lifecycle_publisher(
                        kind, f'~/{name}', 10, qos_overriding_options=overridable()
                    )
        except UserError:
            self.destroy()
            raise

    def wanted(self) -> bool:
        """Whether anybody subscribes to a result."""
        return any(self._publishers[name].get_subscription_count() for name in self._make)

    def publish(self, result: Result, header: Any) -> bool:
        """Publish one result under the header of its image; return whether anybody subscribes."""
        stamp = Time(sec=header.stamp.sec, nanosec=header.stamp.nanosec)
        own = Header(stamp=stamp, frame_id=header.frame_id)
        listened_to = [name for name in self._make if self._publishers[name].get_subscription_count()]
        # Build all before publishing the first: if one fails, none is published.
        messages = [(name, self._make[name](result, own)) for name in listened_to]
        for name, message in messages:
            self._publishers[name].publish(message)
        return bool(listened_to)

    def publish_times(self, **seconds: float) -> None:
        """Publish times of a frame, in seconds, each on its topic ``~/debug/NAME_ms``."""
        for name, time in seconds.items():
            self._publishers[f'debug/{name}_ms'].publish(Float64(data=1000.0 * time))

    def destroy(self) -> None:
        """Remove the topics."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)


def detection_format() -> tuple[type, Callable[[Sequence[Region], Header], Any]] | None:
    """Return the type of ``~/detections`` and a function that builds it from regions; None without vision_msgs."""
    try:
        from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose
    except ImportError:
        return None

    def detections(regions: Sequence[Region], header: Header) -> Any:
        message = Detection2DArray(header=header)
        for region in regions:
            # The id identifies an object over time; regions are not tracked, so it stays empty.
            detection = Detection2D(header=header)
            detection.bbox.center.position.x = region.x + region.width / 2
            detection.bbox.center.position.y = region.y + region.height / 2
            detection.bbox.size_x = float(region.width)
            detection.bbox.size_y = float(region.height)
            hypothesis = ObjectHypothesisWithPose()
            hypothesis.hypothesis.class_id = 'moving'
            hypothesis.hypothesis.score = region.score
            detection.results.append(hypothesis)
            message.detections.append(detection)
        return message

    return Detection2DArray, detections
