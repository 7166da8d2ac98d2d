"""ROS parameters made from the table of options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from moving_object_detector.errors import UserError
from moving_object_detector.nodes.config import NodeConfig
from moving_object_detector.options import Option, options_of, with_values

# Declared by rclpy itself, or by whoever overrides a topic's QoS.
FOREIGN_PREFIXES = ('use_sim_time', 'qos_overrides.', 'start_type_description_service')


def descriptor(declared: Option) -> ParameterDescriptor:
    """Describe an option as ROS does: what it means, what it takes and when it can change."""
    when = 'Can change at any time.' if declared.runtime else 'Can change while unconfigured.'
    description = ParameterDescriptor(name=declared.name, description=f'{declared.description} {when}')
    description.additional_constraints = declared.takes()
    if declared.low is not None and declared.high is not None:
        if declared.kind is int:
            bounds = IntegerRange(from_value=int(declared.low), to_value=int(declared.high), step=0)
            description.integer_range = [bounds]
        else:
            span = FloatingPointRange(from_value=float(declared.low), to_value=float(declared.high), step=0.0)
            description.floating_point_range = [span]
    return description


class Parameters:
    """Keeps a node's ROS parameters and a :class:`NodeConfig` equal.

    The node must declare its overrides by itself (``automatically_declare_parameters_from_overrides``).
    A wrong value given at the start does not end the node: it is remembered in ``problems``, the
    parameter keeps its default, and setting it rightly removes the problem.

    Args:
        node: Whose parameters they are.
        may_change_all: Says whether options that cannot change while running may change now.
        changed: Called with the new configuration after a change at run time.

    """

    def __init__(
        self, node: Node, may_change_all: Callable[[], bool], changed: Callable[[NodeConfig], None]
    ) -> None:
        self.config = NodeConfig()
        self.problems: dict[str, str] = {}
        """Parameter name to what is wrong with the value it was given."""
        self._options = {declared.name: declared for declared in options_of(NodeConfig)}
        self._may_change_all = may_change_all
        self._changed = changed
        given = node.get_parameters_by_prefix('')
        for name in given:
            if name not in self._options and not name.startswith(FOREIGN_PREFIXES):
                near = get_close_matches(name, self._options, 1)
                hint = f'did you mean {near[0]}?' if near else 'see the README for those there are'
                node.get_logger().warning(f'there is no parameter {name}; {hint}')
        for name, declared in self._options.items():
            value: object = declared.default
            if name in given:
                node.undeclare_parameter(name)
                try:
                    value = declared.check(given[name].value)
                except UserError as error:
                    self.problems[name] = str(error)
            node.declare_parameter(name, value, descriptor(declared), ignore_override=True)
            self.config = with_values(self.config, {name: value})
        node.add_on_set_parameters_callback(self._on_set)

    def _on_set(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        values = {one.name: one.value for one in parameters if one.name in self._options}
        fixed = [name for name in values if not self._options[name].runtime]
        if fixed and not self._may_change_all():
            reason = (
                f'{", ".join(fixed)} can change only while the node is unconfigured; '
                'deactivate and clean it up first (ros2 lifecycle set)'
            )
            return SetParametersResult(successful=False, reason=reason)
        try:
            self.config = with_values(self.config, values)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for name in values:
            self.problems.pop(name, None)
        self._changed(self.config)
        return SetParametersResult(successful=True)
