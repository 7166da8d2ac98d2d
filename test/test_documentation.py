"""The documentation names what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from runpy import run_path

import pytest

from moving_object_detector.programs import PROGRAMS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding='utf-8')


def test_the_readme_is_short_and_lists_the_programs():
    text = read('README.md')
    program_table = run_path(str(ROOT / 'scripts' / 'make_docs.py'))['program_table']
    assert len(text.encode()) <= 9000
    assert text.partition('<!-- programs -->\n')[2].partition('\n<!-- /programs -->')[0] == program_table(), 'make docs'
    assert all(f'| `{name}` | ' in text for name in PROGRAMS)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r'\]\(([^)#]+)', page.read_text(encoding='utf-8'))
    missing = [target for target in targets if '://' not in target and not (page.parent / target).exists()]
    assert not missing


def test_launch_arguments_are_declared():
    trees = [ast.parse(path.read_text(encoding='utf-8')) for path in (ROOT / 'launch').glob('*.py')]
    words = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    # After -p and -r stand parameters and topics, not arguments.
    texts = [page.read_text(encoding='utf-8') for page in PAGES]
    named = {name for text in texts for name in re.findall(r'(?<!-p )(?<!-r )\b(\w+):=', text)}
    assert len(named) > 8
    assert named - words == set()


def test_the_map_names_files_that_are_there():
    table = read('ARCHITECTURE.md').partition('## Where to change what')[2].partition('## Rooms')[0]
    rooms = {path.name for path in (ROOT / 'moving_object_detector').iterdir() if path.is_dir()}
    found = 0
    for line in table.splitlines()[3:]:
        room = ''
        for name in re.findall(r'`([\w/]+\.(?:py|html)|\w+/)`', line):
            folder, _, file = name.rpartition('/')
            room = folder or room
            if room in rooms or room == 'programs':
                assert (ROOT / 'moving_object_detector' / room / file).exists(), name
                found += 1
    assert found > 30
    listed = re.findall(r'^\| `(\w+)/`', read('ARCHITECTURE.md').partition('## Rooms')[2], re.MULTILINE)
    assert set(listed) == {name for name in rooms if not name.startswith('__')}


def test_every_promise_names_a_test_that_is_there():
    tests = re.findall(r'`(test/[\w/]+\.py)(?:::(\w+))?`', read('docs/reliability.md'))
    assert len(tests) > 20
    for file, name in tests:
        assert (ROOT / file).is_file(), file
        assert not name or f'def {name}(' in read(file), f'{file}::{name}'
