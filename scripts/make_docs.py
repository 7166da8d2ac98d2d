"""Write what is generated in the documentation: the table of parameters and the list of programs."""

from __future__ import annotations

from pathlib import Path

from moving_object_detector.nodes.config import parameter_table
from moving_object_detector.programs import program_table

ROOT = Path(__file__).resolve().parents[1]
GENERATED = {('docs/parameters.md', 'parameters'): parameter_table, ('README.md', 'programs'): program_table}

for (name, section), table in GENERATED.items():
    file = ROOT / name
    head, begin, rest = file.read_text(encoding='utf-8').partition(f'<!-- {section} -->\n')
    _, end, tail = rest.partition(f'<!-- /{section} -->')
    file.write_text(f'{head}{begin}{table()}\n{end}{tail}', encoding='utf-8')
