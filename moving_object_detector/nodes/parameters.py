"""The parameters of the node ``detect``: the detector's options and its own, and ``qos_overrides`` of its topics."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import QoSOverridingOptions

from moving_object_detector.common.errors import UserError, foreign, shown
from moving_object_detector.common.options import Option, option, options_of, with_values
from moving_object_detector.common.parameter_files import parameters_of_nodes, parse_yaml
from moving_object_detector.detection.config import DetectorConfig, LoadConfig, check_refinement
from moving_object_detector.media.frames import LARGEST_SIDE, SMALLEST_SIDE

log = logging.getLogger(__name__)

# Declared by rclpy itself, or by whoever overrides a topic's QoS.
FOREIGN_PREFIXES = ('use_sim_time', 'qos_overrides.', 'start_type_description_service')


@dataclass(frozen=True)
class InputConfig:
    """How images come in."""

    timeout: float = option(
        3.0, 'Seconds without an image after which the node says why and finishes what waits.', low=0.1, high=3600.0
    )
    reliability: str = option(
        'auto',
        'auto: reliable where all publishers of the images offer it, else best effort, followed as they change.',
        choices=('auto', 'reliable', 'best_effort'),
    )
    queue: int = option(30, 'Images that may wait; the oldest is dropped and counted.', low=1, high=1000)
    max_side: int = option(
        LARGEST_SIDE, 'Longest side of an image that is accepted, pixels.', low=SMALLEST_SIDE, high=65536
    )


@dataclass(frozen=True)
class NodeConfig(DetectorConfig):
    """All parameters of the node."""

    transport: str = option(
        'auto',
        'raw: sensor_msgs/Image on `image`; compressed: CompressedImage on `image`/compressed; auto: what is '
        'published, raw first.',
        choices=('auto', 'raw', 'compressed'),
    )
    estimate: str = option(
        'refined',
        'refined: the whole window, late by window.future x window.stride frames; zero_lag: at once, from earlier '
        'frames only.',
        choices=('refined', 'zero_lag'),
        runtime=True,
    )
    load: LoadConfig = field(default_factory=LoadConfig)
    autostart: bool = option(True, 'Configure and activate at the start.')
    input: InputConfig = field(default_factory=InputConfig)


def descriptor(declared: Option) -> ParameterDescriptor:
    """Describe an option as ROS does: what it means, what it takes and when it can change."""
    when = 'Can change at any time.' if declared.runtime else 'Can change while unconfigured.'
    description = ParameterDescriptor(name=declared.name, description=f'{declared.description} {when}')
    description.additional_constraints = declared.takes()
    if declared.low is not None and declared.high is not None:
        bounds = {'from_value': declared.kind(declared.low), 'to_value': declared.kind(declared.high)}
        if declared.kind is int:
            description.integer_range = [IntegerRange(**bounds)]
        else:
            description.floating_point_range = [FloatingPointRange(**bounds)]
    return description


def values_given(arguments: Sequence[str], node: str) -> Iterator[tuple[str, object]]:
    """Yield names and values of the parameters that ROS arguments set for a node ``/namespace/name``, in order."""
    for flag, text in pairwise(arguments):
        if flag in {'-p', '--param'}:
            rule, _, value = text.partition(':=')
            whose, _, name = rule.rpartition(':')
            if whose in {'', node, node.rpartition('/')[2]}:
                yield name, parse_yaml(value, name)
        elif flag == '--params-file':
            for pattern, parameter, given in parameters_of_nodes(Path(text)):
                if fnmatch(node, pattern.replace('**', '*')):
                    yield parameter, given


def _in_two_types(declared: Option, values: Sequence[object]) -> str:
    """Say that a parameter was given different values of several types; empty where it was not.

    rcl keeps one value for each type, and takes a whole number before one with a point before a text, whichever came
    last.
    """
    read: list[object] = []
    for value in values:
        read.append(value)
        if isinstance(value, str):
            # 2e-4 is a text in YAML 1.1, a number in rcl.
            with suppress(UserError):
                read[-1] = declared.check(value)
    if len({type(value) for value in read}) < 2 or all(value == read[0] for value in read):
        return ''
    listed = ' and as '.join(dict.fromkeys(map(shown, read)))
    kind = 'a number with a point, such as 5.0' if declared.kind is float else declared.takes()
    return (
        f'{declared.name} is given as {listed}: of several types ROS 2 takes one by its type, not the last; '
        f'write each as {kind}'
    )


class Parameters:
    """Keeps a node's ROS parameters and a :class:`NodeConfig` equal.

    The node must declare its overrides by itself; ``arguments`` are ROS's, which it was started with. A wrong value
    given at the start does not end the node: the parameter keeps its default, and :meth:`freeze` refuses until it is
    set.
    """

    def __init__(self, node: Node, arguments: Sequence[str] = ()) -> None:
        self.config = NodeConfig()
        self._options = {declared.name: declared for declared in options_of(NodeConfig)}
        self._problems: dict[str, str] = {}
        self._changed: Callable[[NodeConfig], None] | None = None
        self._frozen = False
        self._lock = threading.Lock()
        given = node.get_parameters_by_prefix('')
        self._find_lost(arguments, node.get_fully_qualified_name())
        for name in given:
            if name not in self._options and not name.startswith(FOREIGN_PREFIXES):
                near = get_close_matches(name, self._options, 1)
                hint = f'did you mean {near[0]}?' if near else 'see docs/parameters.md for those there are'
                log.warning('there is no parameter %s; %s', foreign(name), hint)
        for name, declared in self._options.items():
            value: object = declared.default
            if name in given:
                node.undeclare_parameter(name)
                try:
                    value = declared.check(given[name].value)
                except UserError as error:
                    self._problems[name] = str(error)
            node.declare_parameter(name, value, descriptor(declared), ignore_override=True)
            self.config = with_values(self.config, {name: value})
        node.add_on_set_parameters_callback(self._on_set)

    def _find_lost(self, arguments: Sequence[str], node: str) -> None:
        values: dict[str, list[object]] = {}
        # What ROS has taken and we do not read, such as an alias, is not ours to refuse.
        with suppress(UserError):
            for name, value in values_given(arguments, node):
                values.setdefault(name, []).append(value)
        for name in values.keys() & self._options.keys():
            if problem := _in_two_types(self._options[name], values[name]):
                self._problems[name] = problem

    def freeze(self) -> NodeConfig:
        """Let only parameters of run time change from now on; return them all; UserError where one is still wrong."""
        with self._lock:
            if self._problems:
                raise UserError('; '.join(self._problems.values()))
            self._frozen = True
            return self.config

    def tell(self, changed: Callable[[NodeConfig], None]) -> None:
        """Call ``changed`` with what is set now and, until :meth:`thaw`, with each change, in their order."""
        with self._lock:
            self._changed = changed
            changed(self.config)

    def thaw(self) -> None:
        """Let all parameters change again; nobody is told."""
        with self._lock:
            self._frozen, self._changed = False, None

    def _on_set(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        values = {one.name: one.value for one in parameters if one.name in self._options}
        with self._lock:
            fixed = [name for name in values if not self._options[name].runtime]
            if fixed and self._frozen:
                reason = (
                    f'{", ".join(fixed)} can change only while the node is unconfigured; '
                    'deactivate and clean it up first (ros2 lifecycle set)'
                )
                return SetParametersResult(successful=False, reason=reason)
            try:
                config = with_values(self.config, values)
                if self._frozen:
                    check_refinement(config.refinement.method)
            except UserError as error:
                return SetParametersResult(successful=False, reason=str(error))
            self.config = config
            for name in values:
                self._problems.pop(name, None)
            if values and self._changed is not None:
                self._changed(config)
        return SetParametersResult(successful=True)


# The quality of service of topics


def overridable(*, reliability: bool = True) -> QoSOverridingOptions:
    """Return what makes ``qos_overrides.<topic>.<publisher or subscription>.<policy>`` parameters."""
    kinds = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH]
    return QoSOverridingOptions([*kinds, *([QoSPolicyKind.RELIABILITY] if reliability else [])])


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
