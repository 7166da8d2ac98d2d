"""Reads options from ROS parameter files, without ROS, so that every program can use the node's, and plain YAML."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from moving_object_detector.common.errors import UserError, foreign, shown
from moving_object_detector.common.files import read_file, share_folder
from moving_object_detector.common.options import flatten, options_of, with_values

T = TypeVar('T')
log = logging.getLogger(__name__)

MOST_BYTES: Final = 256 * 1024
DEEPEST: Final = 20
"""Levels of nesting."""
_ALIKE: Final = 0.8
"""Similarity of names from which one counts as a misspelling of the other."""


class _Loader(yaml.SafeLoader):
    """Refuses aliases, with which a short file can expand beyond memory, and deep nesting."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        problem = ''
        if self.check_event(yaml.AliasEvent):
            problem = 'aliases (*name) are not supported, here as in ROS; write the values out'
        elif self.flow_level + len(self.indents) > DEEPEST:
            problem = f'nested deeper than {DEEPEST} levels'
        if problem:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        return super().compose_node(parent, index)


def parse_yaml(text: str, where: object) -> Any:
    """Parse a YAML document of plain values; raises UserError, which names ``where`` and the line."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f', line {mark.line + 1}' if mark is not None else ''
        raise UserError(f'{where}{line}: {foreign(error.problem or error.context, 200)}') from error
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError, TypeError, RecursionError) as error:
        # An invalid character, a number of 5,000 digits, a date that does not exist, endless brackets.
        raise UserError(f'{where}: a value in it cannot be read ({foreign(error, 200)})') from error


def find_config(path: Path) -> Path:
    """Return the file that a user names; if it does not exist, the package's own of that name (``config/cpu.yaml``)."""
    if path.is_absolute() or path.exists():
        return path
    ours = share_folder() / path
    return ours if ours.is_file() else path


def _read_yaml(path: Path) -> Any:
    try:
        text = read_file(path, MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = 'it is not UTF-8' if isinstance(error, UnicodeDecodeError) else error.strerror
        raise UserError(f'{path} cannot be read: {reason}; give a YAML file') from error
    return parse_yaml(text, path)


def _sections(tree: object, where: Path, space: str = '') -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each node's full name and its ros__parameters."""
    for name, section in tree.items() if isinstance(tree, dict) else ():
        full = f'{space}/{str(name).strip("/")}'
        if isinstance(section, dict) and 'ros__parameters' not in section:
            yield from _sections(section, where, full)
            continue
        parameters = section['ros__parameters'] if isinstance(section, dict) else None
        if not isinstance(parameters, dict):
            raise UserError(
                f'{where}: {shown(name)} has no ros__parameters; write "/**:" and under it "ros__parameters:"'
            )
        yield full, parameters


def parameters_of_nodes(path: Path) -> list[tuple[str, str, object]]:
    """Return node, dotted name and value of each entry of a ROS parameter file, in order; UserError if it is not one.

    Nodes are named as in the file, with a leading slash: ``/detect``, ``/**``.
    """
    path = find_config(path.expanduser())
    found = [(node, *item) for node, section in _sections(_read_yaml(path), path) for item in flatten(section)]
    if not found:
        raise UserError(f'{path} holds no parameters; write "/**:" and under it "ros__parameters:"')
    return found


def read_parameter_file(path: Path) -> dict[str, object]:
    """Return the parameters of all nodes in a ROS parameter file by dotted name; UserError if it is not one."""
    return {name: value for _, name, value in parameters_of_nodes(path)}


def read_plain_file(path: Path) -> dict[str, object]:
    """Return the options of a plain YAML file, nested or dotted, by dotted name; raises UserError."""
    path = find_config(path.expanduser())
    tree = _read_yaml(path)
    if not isinstance(tree, dict):
        raise UserError(f'{path} holds no options; write them as in "game:" and under it "steps: 600"')
    return dict(flatten(tree))


def load_plain_config(default: T, path: Path | None, assignments: Sequence[str] = ()) -> T:
    """Return ``default`` with the values of a plain YAML file, then of ``name=value`` texts; UserError if unknown."""
    return with_values(default, (read_plain_file(path) if path is not None else {}) | _assigned(assignments))


def load_config(default: T, path: Path | None, assignments: Sequence[str] = ()) -> T:
    """Return ``default`` with the values of a parameter file, then of ``name=value`` assignments; raises UserError.

    Parameters that ``default`` does not have are ignored in the file, with a warning if they look like a misspelt one,
    but refused in the assignments.
    """
    known = {declared.name for declared in options_of(type(default))}
    given = read_parameter_file(path) if path is not None else {}
    for name in given.keys() - known:
        if near := get_close_matches(name, known, 1, _ALIKE):
            log.warning('%s: there is no parameter %s; did you mean %s?', path, foreign(name), near[0])
    return with_values(default, {name: given[name] for name in given if name in known} | _assigned(assignments))


def _assigned(assignments: Sequence[str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition('=')
        if not equals:
            raise UserError(f'{shown(assignment)} is not of the form name=value')
        try:
            values[name.strip()] = parse_yaml(text, f'the value of {foreign(name.strip())}') if text else ''
        except UserError as error:
            raise UserError(f'{error}; put a text in quotes') from error
    return values
