"""Quality of service that a user can override by parameters, and how a wrong override is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions

from moving_object_detector.common.errors import UserError


def overridable() -> QoSOverridingOptions:
    """Return what makes ``qos_overrides.<topic>.<publisher or subscription>.<policy>`` parameters."""
    return QoSOverridingOptions.with_default_policies()


def sensor_qos() -> QoSProfile:
    """Return a copy of the sensor profile, which overrides may change: best effort, the last five."""
    profile = qos_profile_sensor_data
    return QoSProfile(depth=profile.depth, reliability=profile.reliability, history=profile.history)


def result_qos() -> QoSProfile:
    """Return what results are published with: reliable, the last ten."""
    return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


@contextmanager
def checked_overrides(topic: str) -> Iterator[None]:
    """Say which topic's override is wrong when a publisher or subscription cannot be made.

    Raises:
        UserError: Instead of whatever rclpy raises for the value.

    """
    try:
        yield
    except Exception as error:
        raise UserError(
            f'one of the parameters qos_overrides.{topic}.* is wrong: {error}; reliability takes reliable or '
            'best_effort, history keep_last or keep_all, depth a whole number. They are read at the start only'
        ) from error
