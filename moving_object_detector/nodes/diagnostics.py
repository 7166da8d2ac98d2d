"""The node's state on /diagnostics."""

from __future__ import annotations

from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header


def diagnostics(name: str, level: bytes, message: str, values: Mapping[str, str], stamp: Time) -> DiagnosticArray:
    """Build the message.

    Args:
        name: Full name of the node.
        level: One of DiagnosticStatus.OK, WARN, ERROR.
        message: The state in one line.
        values: Counts, timings and settings.
        stamp: Now.

    """
    status = DiagnosticStatus(name=f'{name}: detection', hardware_id=name, level=level, message=message)
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticArray(header=Header(stamp=stamp), status=[status])
