"""Write the generated tables of the documentation: the node's parameters and the programs."""

from __future__ import annotations

import json
from pathlib import Path

from moving_object_detector.common.options import Option, options_of
from moving_object_detector.nodes.parameters import NodeConfig
from moving_object_detector.programs import PROGRAMS

ROOT = Path(__file__).resolve().parents[1]
TYPES = {bool: 'bool', int: 'integer', float: 'double', str: 'string'}


def _takes(declared: Option) -> str:
    if declared.choices:
        return ', '.join(f'`{choice}`' for choice in declared.choices)
    if declared.low is None or declared.high is None:
        return ''
    return f'{declared.low:g} to {declared.high:g}'


def _default(declared: Option) -> str:
    # In YAML syntax.
    return json.dumps(declared.default) if declared.kind is bool or declared.default == '' else str(declared.default)


def _row(declared: Option) -> str:
    cells = (
        f'`{declared.name}`',
        TYPES[declared.kind],
        f'`{_default(declared)}`',
        _takes(declared),
        'yes' if declared.runtime else '',
        declared.description.replace('|', '\\|'),
    )
    return '| ' + ' | '.join(cells) + ' |'


def parameter_table() -> str:
    """Return the node's parameters as a Markdown table, in order of declaration."""
    return '\n'.join(
        [
            '| name | type | default | takes | at run time | description |',
            '|---|---|---|---|---|---|',
            *map(_row, options_of(NodeConfig)),
        ]
    )


def program_table() -> str:
    """Return the programs as a Markdown table."""
    return '\n'.join(
        ['| program | what it does |', '|---|---|', *(f'| `{name}` | {text} |' for name, (_, text) in PROGRAMS.items())]
    )


GENERATED = {('docs/parameters.md', 'parameters'): parameter_table, ('README.md', 'programs'): program_table}

if __name__ == '__main__':
    for (name, section), table in GENERATED.items():
        file = ROOT / name
        head, begin, rest = file.read_text(encoding='utf-8').partition(f'<!-- {section} -->\n')
        _, end, tail = rest.partition(f'<!-- /{section} -->')
        file.write_text(f'{head}{begin}{table()}\n{end}{tail}', encoding='utf-8')
