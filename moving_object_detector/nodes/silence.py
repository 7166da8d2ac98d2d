"""Why no image comes: the first question about every node of this kind, answered by the node itself."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from moving_object_detector.nodes.outputs import IMAGE_RESULTS

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')


def explain_silence(node: Node, topic: str, kind: str, qos: QoSProfile) -> str:
    """Say why no message of a subscription arrives, and what to do.

    Args:
        node: Who subscribes.
        topic: Full name of the topic.
        kind: Its type as ``package/msg/Type``.
        qos: What the subscription asks for.

    """
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return f'nobody publishes {topic}; {_suggest(node, topic, kind)}'
    names = []
    for publisher in publishers:
        name = _full_name(publisher)
        if publisher.topic_type != kind:
            wrong = f'{name} publishes {topic} as {publisher.topic_type}, but {kind} is needed'
            return f'{wrong}; {_suggest(node, topic, kind)}'
        compatibility, reason = qos_check_compatible(publisher.qos_profile, qos)
        # Compared with ==: each value that rclpy returns is an object of its own.
        if compatibility == QoSCompatibility.ERROR:
            return (
                f'the QoS of {name} on {topic} does not match: {reason.strip(" ;")}; start again with '
                f'-p qos_overrides.{topic}.subscription.{_policy(reason)}'
            )
        names.append(name)
    who = ' and '.join(names)
    return f'{who} advertises {topic} with a QoS that matches, but sends nothing; is the camera running?'


def _policy(reason: str) -> str:
    """Return the override that makes a subscription take what the publisher offers."""
    return 'reliability:=best_effort' if 'reliab' in reason.lower() else '<policy>:=<what the publisher offers>'


def _image_topics(node: Node) -> dict[str, str]:
    """Return the image topics that are published, results of detectors left out, and their types."""
    found = {}
    for topic, kinds in node.get_topic_names_and_types():
        if not set(IMAGE_TYPES) & set(kinds):
            continue
        # These are the types of the subscriptions too, such as of the one that waits in vain.
        for publisher in node.get_publishers_info_by_topic(topic):
            own = topic in [f'{_full_name(publisher)}/{result}' for result in IMAGE_RESULTS]
            if publisher.topic_type in IMAGE_TYPES and not own:
                found[topic] = publisher.topic_type
    return found


def _full_name(endpoint: TopicEndpointInfo) -> str:
    return f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'


def _suggest(node: Node, topic: str, kind: str) -> str:
    there = _image_topics(node)
    if f'{topic}/compressed' in there:
        return f'{topic}/compressed is published: set the parameter transport to compressed'
    raw = topic.removesuffix('/compressed')
    if raw != topic and raw in there:
        return f'{raw} is published: set the parameter transport to raw'
    fitting = sorted(name for name, found in there.items() if found == kind)
    if fitting:
        remap = fitting[0].removesuffix('/compressed')
        return (
            f'{", ".join(fitting)} would fit: start with the argument image_topic:={remap} (ros2 launch) or '
            f'-r image:={remap} (ros2 run)'
        )
    others = ', '.join(sorted(there)) or 'none'
    return f'image topics that are published: {others}; start the camera, and check ROS_DOMAIN_ID'
