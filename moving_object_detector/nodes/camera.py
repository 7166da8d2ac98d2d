"""The node's subscriptions: camera images, with a diagnosis when none arrive; CameraInfo, odometry and tf."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from nav_msgs.msg import Odometry as OdometryMessage
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from moving_object_detector.common.errors import ImageError, foreign
from moving_object_detector.detection.config import OdometryConfig
from moving_object_detector.detection.odometry import Odometry
from moving_object_detector.media.frames import SECOND, stamp_of
from moving_object_detector.media.messages import COMPRESSED_TYPE, RAW_TYPE
from moving_object_detector.nodes.messages import read_message
from moving_object_detector.nodes.outputs import IMAGE_RESULTS
from moving_object_detector.nodes.parameters import NodeConfig, checked_overrides, overridable
from moving_object_detector.nodes.pipeline import Pipeline

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

log = logging.getLogger(__name__)

_CLASSES: Final = {RAW_TYPE: Image, COMPRESSED_TYPE: CompressedImage}
_FOLLOW_PERIOD: Final = 0.2
"""Seconds between checks of who publishes."""
_KEPT_STEPS: Final = 40
"""Latest intervals between stamps, searched for missing images."""
_FEWEST_STEPS: Final = 8
_TOO_MANY_LOST: Final = 0.1
"""Share of missing images above which to warn."""
LOSS_REMEDY: Final = (
    'make the publisher reliable, publish compressed images, or start both the camera and this node with the larger '
    'shared memory of config/fastdds.xml (docs/robot.md, "Images that get lost")'
)

# Best effort matches reliable publishers too; 200: fast odometry while the node is busy for a second.
_STREAM: Final = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
_LATCHED: Final = QoSProfile(
    depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
NO_TF: Final = (
    'tf2_msgs is not installed, so tf is not received; run apt install ros-$ROS_DISTRO-tf2-msgs, or set '
    'odometry.topic and odometry.extrinsics'
)


class Source(NamedTuple):
    """Topic, type and reliability of the image subscription."""

    topic: str
    """Full name."""
    kind: str
    """:data:`RAW_TYPE` or :data:`COMPRESSED_TYPE`."""
    reliable: bool


def candidates(topic: str, transport: str) -> list[tuple[str, str]]:
    """Return the topics and types to look for images on, in order of preference."""
    raw, compressed = (topic, RAW_TYPE), (f'{topic}/compressed', COMPRESSED_TYPE)
    return {'raw': [raw], 'compressed': [compressed], 'auto': [raw, compressed, (topic, COMPRESSED_TYPE)]}[transport]


class ImageInput:
    """Subscribes to images; with ``transport`` or ``input.reliability`` ``auto`` it adapts to the publishers.

    Passes to the pipeline each message, the reason when one cannot be deserialised, and the topic's full name; flushes
    it once when no image has arrived for ``input.timeout`` seconds. Raises UserError for wrong ``qos_overrides``.
    """

    def __init__(self, node: Node, config: NodeConfig, pipeline: Pipeline) -> None:
        self._node = node
        self._config = config
        self._base = str(node.resolve_topic_name('image'))
        # None once destroyed: rclpy keeps a destroyed subscription and its callbacks alive for a while.
        self._pipeline: Pipeline | None = pipeline
        self._last = time.monotonic()
        self.silent = False
        """Whether two calls of :meth:`trouble` in a row found no image for ``input.timeout`` seconds."""
        self.overdue = False
        """Whether the last call of :meth:`trouble` did."""
        self.received = 0
        self.lost = 0
        """Images that the middleware reports as lost."""
        self.mismatches = 0
        """Publishers whose QoS does not match the current subscription."""
        self._suspected: int | None = None
        self._lock = threading.Lock()
        reliable = config.input.reliability != 'best_effort'
        self._subscribe(Source(*candidates(self._base, config.transport)[0], reliable))
        self._follow()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(_FOLLOW_PERIOD, self._follow, clock=steady)

    @property
    def topic(self) -> str:
        """Full name of the subscribed topic."""
        return self._source.topic

    @property
    def topics(self) -> list[str]:
        """Full names of all topics to look for images on."""
        return list(dict.fromkeys(topic for topic, _ in candidates(self._base, self._config.transport)))

    def report(self) -> dict[str, str]:
        """Return subscription and losses as texts for a diagnostic status."""
        return {
            'image topic': self.topic,
            'image type': self._source.kind,
            'image reliability': 'reliable' if self._source.reliable else 'best_effort',
            'frames lost': str(self.lost),
            'publishers with another QoS': str(self.mismatches),
        }

    def destroy(self) -> None:
        """Unsubscribe."""
        with self._lock:
            self._node.destroy_timer(self._timer)
            self._node.destroy_subscription(self._subscription)
            self._pipeline = None

    # Following the publishers

    def _follow(self) -> None:
        """Resubscribe if the publishers no longer match the subscription."""
        with self._lock:
            # While the node ends, its graph must not be asked.
            if self._pipeline is None:
                return
            wanted, kept = self._wanted(), self._source
            if wanted == kept:
                return
            self._node.destroy_subscription(self._subscription)
            try:
                self._subscribe(wanted)
            except Exception:
                self._subscribe(kept)
                raise
        quality = 'reliable' if wanted.reliable else 'best effort'
        log.info('now subscribed to %s (%s, %s), to match its publishers', wanted.topic, wanted.kind, quality)

    def _wanted(self) -> Source:
        for topic, kind in candidates(self._base, self._config.transport):
            offers = [one for one in self._node.get_publishers_info_by_topic(topic) if one.topic_type == kind]
            if offers:
                reliable = all(one.qos_profile.reliability == ReliabilityPolicy.RELIABLE for one in offers)
                # A qos_overrides parameter takes precedence when the subscription is made.
                follows = self._config.input.reliability == 'auto' and not self._overridden(topic)
                return Source(topic, kind, reliable if follows else self._source.reliable)
        return self._source

    def _subscribe(self, source: Source) -> None:
        policy = ReliabilityPolicy.RELIABLE if source.reliable else ReliabilityPolicy.BEST_EFFORT
        self._source, self.mismatches, self.lost, self._bytes = source, 0, 0, 0
        self._steps: deque[int] = deque(maxlen=_KEPT_STEPS)
        self._stamp = 0
        # Otherwise the first subscription would declare its reliability as a parameter, which overrides later ones.
        options = overridable(reliability=self._overridden(source.topic))
        events = SubscriptionEventCallbacks(message_lost=self._on_lost, incompatible_qos=self._on_mismatch)
        # Depth 30: for a node that is busy for a second. Raw: serialised (CDR).
        subscribe = partial(
            self._node.create_subscription, _CLASSES[source.kind], source.topic,
            partial(self._on_message, source.kind), QoSProfile(depth=30, reliability=policy), raw=True,
            qos_overriding_options=options,
        )  # fmt: skip
        with checked_overrides(self._node, source.topic):
            try:
                self._subscription = subscribe(event_callbacks=events)
            except UnsupportedEventTypeError:
                self._subscription = subscribe()
        actual = self._subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        self._source = source._replace(reliable=actual)
        assert self._pipeline is not None
        self._pipeline.topic = source.topic

    def _overridden(self, topic: str) -> bool:
        return bool(self._node.has_parameter(f'qos_overrides.{topic}.subscription.reliability'))

    # What comes

    def _on_message(self, kind: str, data: bytes) -> None:
        # Locked: a message that a subscription delivers while being destroyed must not enter the next stream.
        with self._lock:
            if self._pipeline is None:
                return
            self._last = time.monotonic()
            self.received += 1
            try:
                message = read_message(kind, data)
            except ImageError as error:
                self._pipeline.refuse(str(error))
                return
            self._bytes = len(message.data)
            stamp = stamp_of(message.header)
            step = stamp - self._stamp
            # After a longer one the stream restarts anyway: another recording or clock, or a pause.
            if self._stamp and 0 < step < self._config.continuity.max_gap * SECOND:
                self._steps.append(step)
            elif step:
                self._steps.clear()
            self._stamp = stamp
            if self.silent:
                self.silent = False
                log.info('images are arriving again on %s', self.topic)
            self._pipeline.receive(message)

    def _on_lost(self, event: Any) -> None:
        self.lost += event.total_count_change

    def _on_mismatch(self, event: Any) -> None:
        self.mismatches = event.total_count

    # What is wrong

    def trouble(self) -> str:
        """Say why no image arrives, or that several cameras publish; empty when all is well."""
        silence = time.monotonic() - self._last
        self.overdue = silence > self._config.input.timeout
        if self.overdue:
            self._fall_silent()
            return f'no image for {silence:.0f} s: {self._explain()}'
        publishers = self._node.count_publishers(self.topic)
        if publishers <= 1:
            return ''
        # Intervals between stamps of two cameras tell nothing of either.
        self._steps.clear()
        return (
            f'{publishers} publishers on {self.topic}: masks computed from the mixed images of two cameras are wrong; '
            'give each camera its own topic and its own node'
        )

    def _fall_silent(self) -> None:
        with self._lock:
            # Only at the second check: after a stall of the machine, the first may run before a queued image is taken.
            confirmed, self._suspected = self._suspected == self.received, self.received
            if confirmed and not self.silent and self._pipeline is not None:
                self.silent = True
                self._steps.clear()
                self._stamp = 0
                self._pipeline.flush()

    def holes(self) -> str:
        """Say whether images are missing, judging by the stamps: the middleware does not report every loss."""
        # Without the longest: a single pause of the camera is not a loss.
        steps = sorted(self._steps)[:-1]
        if len(steps) < _FEWEST_STEPS:
            return ''
        period = steps[len(steps) // 4]
        missing = sum(round(step / period) - 1 for step in steps)
        if missing <= _TOO_MANY_LOST * (missing + len(steps)):
            return ''
        return (
            f'the stamps on {self.topic} have holes: {missing} of {missing + len(steps)} images are missing at '
            f'{SECOND / period:.3g} Hz ({self._delivery()}; the middleware reports {self.lost} lost): either the '
            f'camera skips them, or they are lost on the way: {LOSS_REMEDY}'
        )

    def _delivery(self) -> str:
        quality = 'reliable' if self._source.reliable else 'best effort'
        return f'{self._bytes / 1e6:.2g} MB each, {quality}' if self._bytes else quality

    def _explain(self) -> str:
        """Say why no message arrives, as far as the ROS graph shows, and what to do."""
        source = self._source
        publishers = self._node.get_publishers_info_by_topic(source.topic)
        if not publishers:
            return f'nobody publishes {source.topic}; {self._suggestion()}'
        for publisher in publishers:
            if publisher.topic_type != source.kind:
                wrong = f'{_full_name(publisher)} publishes {source.topic} as {foreign(publisher.topic_type)}'
                return f'{wrong}, but this node needs {source.kind}; {self._suggestion()}'
            mismatch = _mismatch(publisher, source.topic, self._subscription.qos_profile)
            if mismatch:
                return mismatch
        who = ' and '.join(_full_name(publisher) for publisher in publishers)
        nothing = 'nothing arrives' if self.received else 'nothing has arrived'
        return (
            f'{who} advertises {source.topic} with a QoS that matches, but {nothing} ({self._delivery()}): either '
            f'nothing is sent (is the camera running? Try ros2 topic hz {source.topic}), or large messages are lost on '
            f'the way: {LOSS_REMEDY}'
        )

    def _suggestion(self) -> str:
        """List the published image topics, without results of detectors, the most similar name first."""
        found = []
        for name, kinds in self._node.get_topic_names_and_types():
            # The types include those of subscriptions, such as this node's own.
            publishers = self._node.get_publishers_info_by_topic(name) if _CLASSES.keys() & set(kinds) else []
            results = [f'{_full_name(one)}/{result}' for one in publishers for result in IMAGE_RESULTS]
            if name not in results and any(one.topic_type in _CLASSES for one in publishers):
                found.append(name)
        if not found:
            return 'no image topic is published; start the camera, and check ROS_DOMAIN_ID'
        found.sort(key=lambda name: (not name.startswith(self._base.removesuffix('/compressed')), name))
        launch, run = f'image_topic:={found[0]}', f'-r image:={found[0]}'
        if self._config.transport != 'auto':
            launch, run = f'{launch} transport:=auto', f'{run} -p transport:=auto'
        listed = ', '.join(found)
        return f'published image topics: {listed}; restart the node with {launch} (ros2 launch) or {run} (ros2 run)'


def _mismatch(publisher: TopicEndpointInfo, topic: str, qos: QoSProfile) -> str:
    compatibility, reason = qos_check_compatible(publisher.qos_profile, qos)
    # Not "is": rclpy returns a new object for each value.
    if compatibility != QoSCompatibility.ERROR:
        return ''
    remedy = (
        f'set input.reliability to auto, and remove qos_overrides.{topic}.subscription.reliability'
        if 'reliab' in reason.lower()
        else f"restart the node with -p qos_overrides.{topic}.subscription.<policy>:=<the publisher's value>"
    )
    return f'the QoS of {_full_name(publisher)} on {topic} does not match: {reason.strip(" ;")}; {remedy}'


def _full_name(endpoint: TopicEndpointInfo) -> str:
    if 'UNKNOWN' in endpoint.node_name:
        return 'a node whose name is not known yet'
    return foreign(f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}')


def hear_motion(node: Node, config: OdometryConfig, odometry: Odometry) -> list[Subscription]:
    """Subscribe to the motion topics and tf frames that the parameters name, and feed ``odometry`` from them."""
    wanted: list[tuple[type, str, Callable[[Any], None], QoSProfile]] = []
    if info := odometry.see(str(node.resolve_topic_name('image'))):
        wanted.append((CameraInfo, info, odometry.add_camera_info, _STREAM))
    if config.topic:
        wanted.append((OdometryMessage, config.topic, odometry.add_odometry, _STREAM))
    if config.frame or (config.topic and not config.extrinsics):
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            odometry.deaf = NO_TF
            log.warning('%s', NO_TF)
        else:
            wanted.append((TFMessage, '/tf', odometry.add_transforms, _STREAM))
            wanted.append((TFMessage, '/tf_static', partial(odometry.add_transforms, static=True), _LATCHED))
    return [node.create_subscription(*subscription) for subscription in wanted]
