"""What the robot knows of its camera, heard on ROS topics: CameraInfo, Odometry and tf."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from nav_msgs.msg import Odometry as OdometryMessage
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from moving_object_detector.detection.config import OdometryConfig
from moving_object_detector.detection.odometry import Odometry, info_topic

log = logging.getLogger(__name__)

# Best effort hears both kinds of publishers; a fast odometry may come while the node is busy for a second.
_STREAM: Final = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
_LATCHED: Final = QoSProfile(
    depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
NO_TF: Final = (
    'tf2_msgs is not installed, so tf is not heard; apt install ros-$ROS_DISTRO-tf2-msgs, or set odometry.topic and '
    'odometry.extrinsics'
)


class OdometryInput:
    """Subscribes to the topics and frames that the parameters name, and tells ``odometry`` what comes."""

    def __init__(self, node: Node, config: OdometryConfig, odometry: Odometry) -> None:
        self._node = node
        self._subscriptions: list[Any] = []
        image = str(node.resolve_topic_name('image'))
        odometry.rectified = 'rect' in image.removesuffix('/compressed').rpartition('/')[2]
        if config.camera_info != 'none':
            name = info_topic(image) if config.camera_info == 'auto' else config.camera_info
            self._subscribe(CameraInfo, name, odometry.add_camera_info, _STREAM)
        if config.topic:
            self._subscribe(OdometryMessage, config.topic, odometry.add_odometry, _STREAM)
        if config.frame or (config.topic and not config.extrinsics):
            try:
                from tf2_msgs.msg import TFMessage
            except ImportError:
                odometry.deaf(NO_TF)
                log.warning('%s', NO_TF)
                return
            self._subscribe(TFMessage, '/tf', odometry.add_transforms, _STREAM)
            self._subscribe(TFMessage, '/tf_static', partial(odometry.add_transforms, static=True), _LATCHED)

    def _subscribe(self, kind: type, topic: str, receive: Callable[[Any], None], qos: QoSProfile) -> None:
        self._subscriptions.append(self._node.create_subscription(kind, topic, receive, qos))

    def destroy(self) -> None:
        """Unsubscribe."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())
