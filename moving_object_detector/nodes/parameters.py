"""The parameters of the node ``detect``: the detector's options, its own, and the ``qos_overrides`` of its topics."""

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

# Declared by rclpy, or given to override the QoS of a topic.
FOREIGN_PREFIXES = ('use_sim_time', 'qos_overrides.', 'start_type_description_service')


@dataclass(frozen=True)
class InputConfig:
    """Reception of images."""

    timeout: float = option(
        3.0, 'Seconds without an image until the node reports why and publishes pending masks.', low=0.1, high=3600.0
    )
    reliability: str = option(
        'auto',
        'QoS of the image subscription; auto: reliable while all image publishers are reliable, else best effort.',
        choices=('auto', 'reliable', 'best_effort'),
    )
    queue: int = option(30, 'Images that may wait in the queue; when full, it drops the oldest.', low=1, high=1000)
    max_side: int = option(LARGEST_SIDE, 'Refuse images with a longer side, pixels.', low=SMALLEST_SIDE, high=65536)


@dataclass(frozen=True)
class NodeConfig(DetectorConfig):
    """All parameters of the node."""

    transport: str = option(
        'auto',
        'raw: sensor_msgs/Image on `image`; compressed: CompressedImage on `image`/compressed; auto: whichever is '
        'published, preferably raw.',
        choices=('auto', 'raw', 'compressed'),
    )
    estimate: str = option(
        'refined',
        'refined: masks from the whole window, window.future x window.stride frames late; zero_lag: masks without '
        'this delay, from earlier frames only.',
        choices=('refined', 'zero_lag'),
        runtime=True,
    )
    load: LoadConfig = field(default_factory=LoadConfig)
    autostart: bool = option(True, 'Configure and activate the node at startup.')
    input: InputConfig = field(default_factory=InputConfig)


def check_estimate(config: NodeConfig) -> None:
    """Raise UserError if no neighbour could vote for the chosen estimate."""
    if config.estimate == 'zero_lag' and not config.window.past:
        raise UserError(
            'estimate is zero_lag, which takes earlier frames only, but window.past is 0, so there would be no masks; '
            'set window.past to 1 or more, or estimate to refined'
        )


def descriptor(declared: Option) -> ParameterDescriptor:
    """Return the ROS description of an option: meaning, accepted values and when it can change."""
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


Assignment = tuple[str, str, str, object]
"""Origin, node pattern, name and value of a parameter."""


def assignments(arguments: Sequence[str]) -> Iterator[Assignment]:
    """Yield the parameters in ROS arguments, in order; raises UserError at a value that YAML cannot read."""
    for flag, text in pairwise(arguments):
        if flag in {'-p', '--param'}:
            rule, _, value = text.partition(':=')
            whose, _, name = rule.rpartition(':')
            yield f'-p {text}', whose or '/**', name, parse_yaml(value, name)
        elif flag == '--params-file':
            for pattern, parameter, given in parameters_of_nodes(Path(text)):
                yield text, pattern, parameter, given


def _applies(pattern: str, node: str) -> bool:
    # Patterns in files begin with a slash, names after -p need not.
    return fnmatch(node, pattern.replace('**', '*')) or pattern == node.rpartition('/')[2]


def values_given(given: Sequence[Assignment], node: str) -> Iterator[tuple[str, object]]:
    """Yield name and value of each parameter that is set for a node ``/namespace/name``, in order."""
    return ((name, value) for _, pattern, name, value in given if _applies(pattern, node))


def without_effect(given: Sequence[Assignment], node: str) -> Iterator[str]:
    """Yield a sentence for each parameter file or assignment that sets nothing for a node ``/namespace/name``."""
    patterns: dict[str, list[str]] = {}
    for origin, pattern, _, _ in given:
        patterns.setdefault(origin, []).append(pattern)
    for origin, found in patterns.items():
        if not any(_applies(pattern, node) for pattern in found):
            whose = ', '.join(map(foreign, dict.fromkeys(found)))
            yield f'{foreign(origin, 300)} has no effect: it is for {whose}; this node is {node} (/** is every node)'


def _type_conflict(declared: Option, values: Sequence[object]) -> str:
    """Return an error message if a parameter was given different values of several types, else ''.

    rcl keeps one value per type and prefers integers to floats to strings, regardless of which came last.
    """
    read: list[object] = []
    for value in values:
        read.append(value)
        if isinstance(value, str):
            # 2e-4 is a string in YAML 1.1, a number in rcl.
            with suppress(UserError):
                read[-1] = declared.check(value)
    if len({type(value) for value in read}) < 2 or all(value == read[0] for value in read):
        return ''
    listed = ' and as '.join(dict.fromkeys(map(shown, read)))
    kind = 'a number with a point, such as 5.0' if declared.kind is float else declared.takes()
    return (
        f'{declared.name} is given as {listed}: of values of different types ROS 2 may not take the last one; '
        f'write each as {kind}'
    )


class Parameters:
    """Keeps a node's ROS parameters and a :class:`NodeConfig` in sync.

    The node must declare parameters from overrides automatically; ``arguments`` are its ROS arguments. A wrong value
    at startup does not end the node: the parameter keeps its default, and :meth:`freeze` raises until it is set.
    """

    def __init__(self, node: Node, arguments: Sequence[str] = ()) -> None:
        self.config = NodeConfig()
        self._options = {declared.name: declared for declared in options_of(NodeConfig)}
        self._problems: dict[str, str] = {}
        self._changed: Callable[[NodeConfig], None] | None = None
        self._frozen = False
        self._lock = threading.Lock()
        given = node.get_parameters_by_prefix('')
        self._check_arguments(arguments, node.get_fully_qualified_name())
        for name in given:
            if name not in self._options and not name.startswith(FOREIGN_PREFIXES):
                near = get_close_matches(name, self._options, 1)
                hint = f'did you mean {near[0]}?' if near else 'see docs/parameters.md for the list'
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

    def _check_arguments(self, arguments: Sequence[str], node: str) -> None:
        given: list[Assignment] = []
        # ROS may accept what our parser does not, such as an alias.
        with suppress(UserError):
            given.extend(assignments(arguments))
        for sentence in without_effect(given, node):
            log.warning('%s', sentence)
        values: dict[str, list[object]] = {}
        for name, value in values_given(given, node):
            values.setdefault(name, []).append(value)
        for name in values.keys() & self._options.keys():
            if problem := _type_conflict(self._options[name], values[name]):
                self._problems[name] = problem

    def freeze(self) -> NodeConfig:
        """Allow only runtime parameters to change from now on; return all. Raises UserError if one is still wrong."""
        with self._lock:
            if self._problems:
                raise UserError('; '.join(self._problems.values()))
            check_estimate(self.config)
            self._frozen = True
            return self.config

    def tell(self, changed: Callable[[NodeConfig], None]) -> None:
        """Call ``changed`` with the current values and, until :meth:`thaw`, after each change, in order."""
        with self._lock:
            self._changed = changed
            changed(self.config)

    def thaw(self) -> None:
        """Let all parameters change again, without calling back."""
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
                    check_estimate(config)
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
    """Return options that declare ``qos_overrides.<topic>.<publisher or subscription>.<policy>`` parameters."""
    kinds = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH]
    return QoSOverridingOptions([*kinds, *([QoSPolicyKind.RELIABILITY] if reliability else [])])


class QosError(UserError):
    """A ``qos_overrides`` parameter is wrong; they are read at startup, so the node must be restarted."""


@contextmanager
def checked_overrides(node: Node, topic: str) -> Iterator[None]:
    """Raise QosError, which names the topic's overrides, if a publisher or subscription cannot be created."""
    try:
        yield
    except Exception as error:
        prefix = f'qos_overrides.{topic}'
        values = node.get_parameters_by_prefix(prefix)
        given = ', '.join(f'{prefix}.{name} {shown(one.value)}' for name, one in values.items())
        raise QosError(
            f'one of the parameters {given or prefix} is wrong: reliability takes reliable or best_effort, history '
            'keep_last or keep_all, depth a whole number such as 5; they are read only at startup: correct it and '
            'restart the node'
        ) from error


def unknown_overrides(node: Node, topics: Iterable[str]) -> list[str]:
    """Return the ``qos_overrides`` parameters that match none of the node's topics."""
    known = tuple(f'qos_overrides.{topic}.' for topic in topics)
    given = node.get_parameters_by_prefix('qos_overrides')
    return [f'qos_overrides.{name}' for name in given if not f'qos_overrides.{name}'.startswith(known)]
