"""The table of parameters in docs/parameters.md, printed from the options."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from moving_object_detector.common.options import Option, options_of
from moving_object_detector.nodes.config import NodeConfig

_TYPES = {bool: 'bool', int: 'integer', float: 'double', str: 'string'}
_HEAD = '| name | type | default | takes | at run time | description |\n|---|---|---|---|---|---|'


def _takes(declared: Option) -> str:
    if declared.choices:
        return ', '.join(f'`{choice}`' for choice in declared.choices)
    if declared.low is None or declared.high is None:
        return ''
    return f'{declared.low:g} to {declared.high:g}'


def _default(declared: Option) -> str:
    # As it is written in YAML.
    return json.dumps(declared.default) if declared.kind is bool or declared.default == '' else str(declared.default)


def _row(declared: Option) -> str:
    cells = (
        f'`{declared.name}`',
        _TYPES[declared.kind],
        f'`{_default(declared)}`',
        _takes(declared),
        'yes' if declared.runtime else '',
        declared.description.replace('|', '\\|'),
    )
    return '| ' + ' | '.join(cells) + ' |'


def parameter_table() -> str:
    """Return all parameters of the node as a Markdown table, in the order of their declaration."""
    return '\n'.join([_HEAD, *(_row(declared) for declared in options_of(NodeConfig))])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    argparse.ArgumentParser(prog='parameter_table', description=__doc__).parse_args(argv)
    sys.stdout.write(parameter_table() + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
