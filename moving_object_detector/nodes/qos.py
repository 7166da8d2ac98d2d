"""Quality of service that a user can override by parameters, and how a wrong override is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from moving_object_detector.common.errors import UserError, shown


def overridden(node: Node, topic: str, end: str, policy: str) -> bool:
    """Return whether the user overrides a policy of the ``publisher`` or ``subscription`` (``end``) of a topic."""
    return bool(node.has_parameter(f'qos_overrides.{topic}.{end}.{policy}'))


def overridable(*, reliability: bool = True) -> QoSOverridingOptions:
    """Return what makes ``qos_overrides.<topic>.<publisher or subscription>.<policy>`` parameters."""
    kinds = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH]
    return QoSOverridingOptions([*kinds, *([QoSPolicyKind.RELIABILITY] if reliability else [])])


def image_qos(reliability: ReliabilityPolicy) -> QoSProfile:
    """Return what images are subscribed to with: the last thirty, for a node that is busy for a second."""
    return QoSProfile(depth=30, reliability=reliability, history=HistoryPolicy.KEEP_LAST)


def result_qos() -> QoSProfile:
    """Return what results are published with: reliable, the last ten."""
    return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


def subscribe_with_events(
    node: Node,
    message: type,
    topic: str,
    receive: Callable[[bytes], None],
    qos: QoSProfile,
    overriding: Any,
    *,
    lost: Callable[[Any], None],
    mismatch: Callable[[Any], None],
) -> Subscription:
    """Subscribe to messages in CDR, and hear what the middleware says of lost ones and of publishers."""
    try:
        from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
    except ImportError:  # Humble
        from rclpy.qos_event import (
            SubscriptionEventCallbacks,
            UnsupportedEventTypeError,
        )
    events = SubscriptionEventCallbacks(message_lost=lost, incompatible_qos=mismatch)
    try:
        return node.create_subscription(
            message, topic, receive, qos, raw=True, qos_overriding_options=overriding, event_callbacks=events
        )
    except UnsupportedEventTypeError:
        return node.create_subscription(message, topic, receive, qos, raw=True, qos_overriding_options=overriding)


class QosError(UserError):
    """A ``qos_overrides`` parameter is wrong; they are read when the node starts, so only a new start helps."""


@contextmanager
def checked_overrides(node: Node, topic: str) -> Iterator[None]:
    """Say which topic's override is wrong (QosError) when a publisher or subscription cannot be made."""
    try:
        yield
    except Exception as error:
        prefix = f'qos_overrides.{topic}'
        values = node.get_parameters_by_prefix(prefix)
        given = ', '.join(f'{prefix}.{name} {shown(one.value)}' for name, one in values.items())
        raise QosError(
            f'of the parameters {given or prefix} one is wrong: reliability takes reliable or best_effort, history '
            'keep_last or keep_all, depth a whole number such as 5; they are read at the start: start the node again '
            'with it right'
        ) from error


def unknown_overrides(node: Node, topics: Iterable[str]) -> list[str]:
    """Return the ``qos_overrides`` parameters that were given for none of the node's topics."""
    known = tuple(f'qos_overrides.{topic}.' for topic in topics)
    given = node.get_parameters_by_prefix('qos_overrides')
    return [f'qos_overrides.{name}' for name in given if not f'qos_overrides.{name}'.startswith(known)]
