"""``make`` deletes nothing that it did not make, and its variables are values, whatever they hold."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = [
    "data/it's",
    "x';touch PWN;'",
    '";touch PWN;"',
    '$(touch PWN)',
    '$(shell touch PWN)',
    '`touch PWN`',
    'a b # c',
]
# Stands for the environment's Python: runs our own script, and prints the arguments of every program.
PYTHON = f"""#!/bin/sh
case "$1" in
  -c) exit 0 ;;
  --version) echo Python 3.11.0 ;;
  scripts/with_args.py) exec '{sys.executable}' "$@" ;;
  *) exec '{sys.executable}' -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@" ;;
esac
"""


def make(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name in {'HOME', 'PATH'}}
    inherited |= {'PIP_NO_INDEX': '1', 'PIP_FIND_LINKS': '', 'PIP_CONFIG_FILE': os.devnull}
    command = ['make', '--no-print-directory', *arguments]
    return subprocess.run(
        command, cwd=tree, env=inherited | environment, check=False, capture_output=True, text=True, timeout=240
    )


def ready(folder: Path, tree: Path) -> None:
    """Lay an environment that ``make env`` takes for its own and for complete."""
    files = ['lock.txt', 'lock-build.txt', 'lock-ros.txt', 'torch.txt', 'crf.txt']
    hashes = subprocess.run(
        ['sha256sum', *files], cwd=tree / 'requirements', check=True, capture_output=True, text=True
    )
    (folder / 'bin').mkdir(parents=True)
    (folder / 'pyvenv.cfg').touch()
    (folder / '.made-by-moving-object-detector').write_text(f'ros wheels\n{hashes.stdout}')
    tests = (tree / 'requirements' / 'lock-test.txt').read_bytes()
    (folder / '.made-for-tests').write_text(f'{hashlib.sha256(tests).hexdigest()}  -\n')
    (folder / 'bin' / 'python').write_text(PYTHON)
    (folder / 'bin' / 'python').chmod(0o755)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with nothing but what ``make`` itself needs."""
    tree = tmp_path / 'checkout'
    shutil.copytree(ROOT / 'scripts', tree / 'scripts')
    shutil.copytree(ROOT / 'requirements', tree / 'requirements')
    shutil.copy(ROOT / 'Makefile', tree)
    for name in ('package.xml', 'setup.py', 'setup.cfg', 'moving_object_detector/a.py', 'launch/a', 'config/a',
                 'models/a', 'resource/a', 'install/local_setup.bash', 'install/COLCON_IGNORE'):  # fmt: skip
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).touch()
    return tree


def arguments(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the arguments of the program that ran last."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize('value', HOSTILE)
def test_every_variable_reaches_the_program_as_it_is(tree, value):
    ready(tree / 'env' / value, tree)
    venv = f'VENV=env/{value}'
    found = arguments(
        make(tree, venv, 'eval', *(f'{name}={value}' for name in ('DATASET', 'ROOT', 'SPLIT', 'OUT', 'PARAMS')))
    )
    options = [f'--{name}={value}' for name in ('dataset', 'root', 'split', 'out', 'config')]
    assert found == ['-m', 'moving_object_detector.evaluation.evaluate', *options]
    found = arguments(
        make(tree, venv, 'demo', *(f'{name}={value}' for name in ('INPUT', 'OUT', 'PARAMS', 'RATE', 'VIEW')))
    )
    options = [f'--{name}={value}' for name in ('out', 'params', 'rate')]
    assert found == ['-m', 'moving_object_detector.programs', 'demo', *options, '--', value]
    # A variable of the environment is a variable of make, too.
    found = arguments(make(tree, venv, 'eval', ROOT=value))
    assert f'--root={value}' in found
    assert not list(tree.rglob('PWN'))


@pytest.mark.parametrize('value', HOSTILE)
def test_no_variable_is_executed(tree, value):
    ready(tree / '.venv', tree)
    make(tree, 'bench', *(f'{name}={value}' for name in ('ARGS', 'PIP_ARGS', 'CRF')))
    make(tree, 'env', 'VENV=new', f'PYTHON={value}')
    assert not list(tree.rglob('PWN'))


@pytest.mark.slow
def test_nor_are_arguments_of_pip(tree, offline):
    (tree / 'requirements' / 'torch.txt').write_text('no-such-package==1\n')
    done = make(tree, 'env', **offline | {'PIP_ARGS': ' '.join(HOSTILE[2:6])})
    assert 'pip did not install' in done.stderr
    assert not list(tree.rglob('PWN'))


def test_more_arguments_are_words_in_quotes_too(tree):
    ready(tree / '.venv', tree)
    found = arguments(make(tree, 'bench', "ARGS=--only 'a b' \"it's\" $HOME *"))
    assert found[-5:] == ['--only', 'a b', "it's", '$HOME', '*']
    done = make(tree, 'bench', "ARGS=it's")
    assert done.returncode != 0
    assert 'ARGS' in done.stderr


@pytest.mark.parametrize('target', ['env', 'clean'])
@pytest.mark.parametrize('content', ['file', 'folder', 'other environment'])
def test_a_folder_of_others_stays(tree, tmp_path, target, content):
    precious = tmp_path / 'precious'
    if content == 'file':
        precious.write_text('kept')
    else:
        precious.mkdir()
        (precious / ('pyvenv.cfg' if content == 'other environment' else 'thesis.tex')).write_text('kept')
    before = [path.read_text() for path in tmp_path.rglob('*') if 'precious' in str(path) and path.is_file()]
    done = make(tree, target, f'VENV={precious}')
    assert done.returncode != 0
    assert str(precious) in done.stderr
    assert 'VENV=' in done.stderr
    assert [path.read_text() for path in tmp_path.rglob('*') if 'precious' in str(path) and path.is_file()] == before


def test_a_second_newer_clone_takes_a_ready_environment(tree, tmp_path):
    shared = tmp_path / 'shared env'
    ready(shared, tree)
    second = shutil.copytree(tree, tmp_path / 'second')
    for path in (second / 'requirements').iterdir():
        os.utime(path)
    done = make(second, 'env', f'VENV={shared}')
    assert (done.returncode, done.stdout) == (0, '')


@pytest.fixture
def offline(tree):
    """The checkout with nothing to install, and what ``make env`` needs to take the outcome for good."""
    for path in (tree / 'requirements').glob('*.txt'):
        path.write_text('# nothing\n')
    for name in ('cv2', 'numpy', 'rclpy', 'sensor_msgs/msg', 'torch'):
        (tree / 'installed' / name).mkdir(parents=True)
    return {'PYTHONPATH': str(tree / 'installed'), 'CRF': '0', 'PYTHON': sys.executable}


@pytest.mark.slow
def test_the_new_environment_is_built_aside_and_names_itself(tree, offline):
    ready(tree / 'my env', tree)
    (tree / 'requirements' / 'torch.txt').write_text('# changed\n')
    done = make(tree, 'packages', 'VENV=my env', **offline)
    assert done.returncode == 0, done.stderr
    assert not list(tree.glob('my env.*'))
    assert (tree / 'my env' / 'bin' / 'python').resolve() == Path(sys.executable).resolve()
    activate = (tree / 'my env' / 'bin' / 'activate').read_text()
    assert f'{tree}/my env' in activate
    assert 'my env.new' not in activate
    assert make(tree, 'packages', 'VENV=my env', **offline).stdout == ''
    assert make(tree, 'clean', 'VENV=my env').returncode == 0
    assert not (tree / 'my env').exists()


@pytest.mark.slow
def test_what_only_tests_is_added_for_the_tests(tree, offline):
    """To the environment that runs, in place; what fails there is tried again."""
    added = tree / '.venv' / '.made-for-tests'
    assert make(tree, 'packages', **offline).returncode == 0
    (tree / '.venv' / 'kept').touch()
    (tree / 'requirements' / 'lock-test.txt').write_text('no-such-package==1 --hash=sha256:00\n')
    done = make(tree, 'env', **offline)
    assert done.returncode != 0
    assert 'lock-test.txt' in done.stderr
    assert not added.exists()
    (tree / 'requirements' / 'lock-test.txt').write_text('# nothing\n')
    assert make(tree, 'env', **offline).returncode == 0
    assert added.exists()
    assert (tree / '.venv' / 'kept').exists()
    assert make(tree, 'env', **offline).stdout == ''


@pytest.mark.slow
def test_an_environment_stays_where_the_new_one_fails(tree, offline):
    ready(tree / '.venv', tree)
    (tree / '.venv' / 'kept').write_text('by hand')
    (tree / 'requirements' / 'torch.txt').write_text('no-such-package==1\n')
    done = make(tree, 'env', **offline)
    assert done.returncode != 0
    assert 'no-such-package' in done.stderr
    assert (tree / '.venv' / 'kept').read_text() == 'by hand'
    assert sorted(path.name for path in tree.glob('.venv*')) == ['.venv']


def test_clean_leaves_results_and_folders_that_colcon_did_not_make(tree):
    ready(tree / '.venv', tree)
    for name in ('build/mine', 'evaluation_output/results.json', 'demo_output/overlay.mp4'):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).touch()
    assert make(tree, 'clean').returncode == 0
    assert (tree / 'build' / 'mine').exists()
    assert (tree / 'evaluation_output' / 'results.json').exists()
    assert (tree / 'demo_output' / 'overlay.mp4').exists()
    assert not (tree / '.venv').exists()
    assert not (tree / 'install').exists()


def test_every_pinned_package_has_its_hashes_in_the_lock():
    folder = ROOT / 'requirements'

    def pins(*names: str) -> set[str]:
        lines = [
            line.partition(';')[0].split('#')[0].rstrip(' \\\n') for name in names for line in (folder / name).open()
        ]
        return {
            line.lower().replace('[fastrtps]', '').replace('_', '-')
            for line in lines
            if '==' in line and line[0] != ' '
        }

    names = {path.name for path in folder.glob('*.txt') if not path.name.startswith('lock')}
    asked = pins(*names - {'crf.txt', 'robot.txt', 'torch.txt'})
    locks = ('lock.txt', 'lock-build.txt', 'lock-ros.txt', 'lock-test.txt')
    locked = pins(*locks)
    assert asked
    assert asked <= locked, "a pin was changed without 'make lock'"
    for name in ('crf.txt', *locks):
        text = (folder / name).read_text().replace('\\\n', ' ')
        assert all('--hash=sha256:' in line for line in text.splitlines() if '==' in line), name


def test_what_tests_changes_nothing_that_runs():
    """And what needs a GPU or only tests is in no lock of what runs."""
    folder = ROOT / 'requirements'
    pinned = re.compile(r'^([a-z0-9-]+)==(\S+)', re.MULTILINE)
    runs, tests = ({} for _ in range(2))
    for found, name in ((runs, 'lock.txt'), (tests, 'lock-test.txt')):
        for package, version in pinned.findall((folder / name).read_text()):
            found.setdefault(package, set()).add(version)
    assert runs.keys() & tests.keys()
    assert all(tests[package] <= runs[package] for package in runs.keys() & tests.keys())
    assert runs.keys().isdisjoint({'triton', 'onnx', 'onnxruntime', 'mypy', 'ruff'})
    assert not [package for package in runs if package.startswith(('nvidia', 'cuda'))]
