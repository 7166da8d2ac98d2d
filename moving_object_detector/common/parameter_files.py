"""Options from files: ROS parameter files, without ROS, so that every program runs on the node's; plain YAML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.options import flatten, options_of, with_values

T = TypeVar('T')


def _sections(tree: object, where: str) -> Iterator[dict[str, Any]]:
    """Yield the ros__parameters of each node, also of nodes under namespaces."""
    for name, section in tree.items() if isinstance(tree, dict) else ():
        if isinstance(section, dict) and 'ros__parameters' not in section:
            yield from _sections(section, where)
            continue
        parameters = section['ros__parameters'] if isinstance(section, dict) else None
        if not isinstance(parameters, dict):
            raise UserError(f'{where}: {name!r} has no ros__parameters; write "/**:" and under it "ros__parameters:"')
        yield parameters


def read_parameter_file(path: Path) -> dict[str, object]:
    """Return the parameters of a file as dotted names; those of several nodes are merged in their order.

    Raises:
        UserError: The file cannot be read, or is not a ROS parameter file.

    """
    try:
        tree = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f'{path} cannot be read as a parameter file: {error}') from error
    values: dict[str, object] = {}
    for section in _sections(tree, str(path)):
        values.update(flatten(section))
    if not values:
        raise UserError(f'{path} holds no parameters; write "/**:" and under it "ros__parameters:"')
    return values


def read_plain_file(path: Path) -> dict[str, object]:
    """Return the options of a plain YAML file, nested or with dotted names, as dotted names.

    Raises:
        UserError: The file cannot be read, or is not a tree of options.

    """
    try:
        tree = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f'{path} cannot be read as a YAML file: {error}') from error
    if not isinstance(tree, dict):
        raise UserError(f'{path} holds no options; write them as in "game:" and under it "steps: 600"')
    return dict(flatten(tree))


def load_plain_config(default: T, path: Path | None, assignments: Sequence[str] = ()) -> T:
    """Return ``default`` with the values of a plain YAML file, all of them known, then of ``name=value`` assignments.

    Raises:
        UserError: Something in either is wrong; the message names it.

    """
    values = read_plain_file(path) if path is not None else {}
    return with_values(default, {**values, **_assigned(assignments)})


def load_config(default: T, path: Path | None, assignments: Sequence[str] = ()) -> T:
    """Return ``default`` with the values of a parameter file, then of ``name=value`` assignments.

    Parameters of the node that ``default`` does not have are passed over in the file, not in the assignments.

    Raises:
        UserError: Something in either is wrong; the message names it.

    """
    values: dict[str, object] = {}
    if path is not None:
        known = {declared.name for declared in options_of(type(default))}
        values = {name: value for name, value in read_parameter_file(path).items() if name in known}
    return with_values(default, {**values, **_assigned(assignments)})


def _assigned(assignments: Sequence[str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition('=')
        if not equals:
            raise UserError(f'{assignment!r} is not of the form name=value')
        try:
            values[name.strip()] = yaml.safe_load(text) if text else ''
        except yaml.YAMLError as error:
            raise UserError(f'{assignment!r} has a value that is not YAML; put it in quotes') from error
    return values
