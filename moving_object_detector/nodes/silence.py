"""Why no image comes: the first question about every node of this kind, answered by the node itself."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

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
        name = f'{publisher.node_namespace.rstrip("/")}/{publisher.node_name}'
        if publisher.topic_type != kind:
            wrong = f'{name} publishes {topic} as {publisher.topic_type}, but {kind} is needed'
            return f'{wrong}; {_suggest(node, "", kind)}'
        compatibility, reason = qos_check_compatible(publisher.qos_profile, qos)
        if compatibility is QoSCompatibility.ERROR:
            return (
                f'the QoS of {name} on {topic} does not match: {reason.strip()} Set '
                f'qos_overrides.{topic}.subscription.<policy> to what the publisher offers'
            )
        names.append(name)
    who = ' and '.join(names)
    return f'{who} advertises {topic} with a QoS that matches, but sends nothing; is the camera running?'


def _suggest(node: Node, topic: str, kind: str) -> str:
    there = {name: kinds[0] for name, kinds in node.get_topic_names_and_types() if kinds and kinds[0] in IMAGE_TYPES}
    there = {name: found for name, found in there.items() if node.count_publishers(name) and '/~' not in name}
    own = node.get_fully_qualified_name() + '/'
    there = {name: found for name, found in there.items() if not name.startswith(own)}
    compressed = f'{topic}/compressed'
    if compressed in there:
        return f'{compressed} is published: set the parameter transport to compressed'
    raw = topic.removesuffix('/compressed')
    if raw != topic and raw in there:
        return f'{raw} is published: set the parameter transport to raw'
    fitting = sorted(name for name, found in there.items() if found == kind)
    if fitting:
        remap = fitting[0].removesuffix('/compressed')
        return f'{", ".join(fitting)} would fit: start with the argument image:={remap} (ros2 run: -r image:={remap})'
    others = ', '.join(sorted(there)) or 'none'
    return f'image topics that are published: {others}; start the camera, and check ROS_DOMAIN_ID'
