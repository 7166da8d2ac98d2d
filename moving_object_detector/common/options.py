"""Options declared once (default, range, meaning), for ROS parameters, YAML files, command lines and documentation."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, cast, get_type_hints

from moving_object_detector.common.errors import UserError, shown

T = TypeVar('T')
_KEY = 'moving_object_detector.option'


@dataclass(frozen=True)
class Option:
    """One option of a group, with its full dotted name."""

    name: str
    kind: type
    """bool, int, float or str."""
    default: bool | int | float | str
    description: str
    low: float | None = None
    """Smallest value allowed."""
    high: float | None = None
    """Largest value allowed."""
    choices: tuple[str, ...] = ()
    runtime: bool = False
    """Whether it can be changed while the detector runs."""

    def check(self, value: object) -> bool | int | float | str:
        """Return ``value`` in the option's type; raises UserError if the option does not accept it."""
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            # An integer too large for a float becomes infinite, and is refused below.
            value = float(value) if abs(value) < 1 << 1023 else math.copysign(math.inf, value)
        if self.kind is float and isinstance(value, str) and re.fullmatch(r'[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+', value):
            # YAML 1.1 reads 2e-4 as a string.
            value = float(value)
        fits = isinstance(value, self.kind) and (self.kind is bool or not isinstance(value, bool))
        if fits and isinstance(value, (int, float)):
            # NaN fails every limit.
            fits = (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
        if not fits or (self.choices and value not in self.choices):
            raise UserError(f'{self.name} is {shown(value)}, but takes {self.takes()}')
        return cast('bool | int | float | str', value)

    def takes(self) -> str:
        """Describe the accepted values in words."""
        if self.choices:
            return 'one of ' + ', '.join(self.choices)
        word = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a string'}[self.kind]
        if self.low is not None and self.high is not None:
            return f'{word} from {self.low:g} to {self.high:g}'
        return word if self.low is None else f'{word} of at least {self.low:g}'


def option(default: bool | float | str, description: str, **details: Any) -> Any:
    """Declare a dataclass field as an option; ``details``: low, high, choices and runtime of :class:`Option`."""
    return field(default=default, metadata={_KEY: {'description': description, **details}})


def options_of(group: type, prefix: str = '') -> Iterator[Option]:
    """Yield the options of a dataclass and, as ``group.name``, of those nested in it, in order."""
    hints = get_type_hints(group)
    for member in fields(group):
        kind = hints[member.name]
        if is_dataclass(kind):
            yield from options_of(kind, f'{prefix}{member.name}.')  # type: ignore[arg-type]
        elif _KEY in member.metadata and member.default is not MISSING:
            yield Option(f'{prefix}{member.name}', kind, member.default, **member.metadata[_KEY])


def flatten(tree: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings as dotted names and values, in order."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value


def with_values(config: T, values: Mapping[str, object]) -> T:
    """Return ``config`` with the options named in ``values`` replaced; raises UserError for a wrong name or value."""
    known = {declared.name: declared for declared in options_of(type(config))}
    tree: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f'there is no option {shown(name)}; the options are {", ".join(known)}')
        *groups, last = name.split('.')
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[last] = known[name].check(value)
    return cast('T', _replaced(config, tree))


def _replaced(config: Any, tree: Mapping[str, Any]) -> Any:
    """Replace all at once, so that checks across the options of a group do not depend on their order."""
    changes = {
        name: _replaced(getattr(config, name), new) if isinstance(new, dict) else new for name, new in tree.items()
    }
    return replace(config, **changes)
