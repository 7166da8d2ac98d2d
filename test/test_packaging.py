"""What colcon builds is what ``ros2 run`` and ``ros2 launch`` need, and its programs start fast."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import moving_object_detector

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'moving_object_detector'
PROGRAMS = [
    'bench', 'contact_sheet', 'convert_weights', 'demo', 'detect', 'evaluate', 'export_onnx',
    'get_weights', 'make_bag', 'make_video', 'play', 'quantise', 'record', 'render', 'train', 'view',
]  # fmt: skip
SLOW_TO_IMPORT = ('cv2', 'matplotlib', 'numpy', 'openvino', 'rclpy', 'rosbags', 'torch', 'tqdm')


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=240, **options)


def colcon(*arguments: object) -> str:
    if find_spec('colcon_ros') is None:
        pytest.skip('colcon with colcon-ros is not installed in this environment')
    done = run(sys.executable, '-m', 'colcon', '--log-base', os.devnull, *arguments, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix that colcon installs the package to."""
    base = tmp_path_factory.mktemp('colcon')
    colcon('build', '--base-paths', ROOT, '--packages-select', PACKAGE, '--build-base', base / 'build',
           '--install-base', base / 'install')  # fmt: skip
    return base / 'install' / PACKAGE


@pytest.fixture(scope='module')
def environment(installed: Path) -> dict[str, str]:
    library = installed / 'lib' / f'python3.{sys.version_info.minor}' / 'site-packages'
    path = os.pathsep.join([str(library), *filter(None, [os.environ.get('PYTHONPATH')])])
    return {**os.environ, 'PYTHONPATH': path}


def test_colcon_takes_it_for_a_ros_package():
    # A package.xml that catkin_pkg rejects is silently treated as plain Python.
    assert colcon('list', '--base-paths', ROOT).split() == [PACKAGE, str(ROOT), '(ros.ament_python)']


def test_version_is_the_same_everywhere():
    version = ET.parse(ROOT / 'package.xml').getroot().findtext('version')
    assert version == moving_object_detector.__version__
    assert f'## [{version}]' in (ROOT / 'CHANGELOG.md').read_text()


def test_programs_are_where_ros2_run_looks(installed: Path):
    folder = installed / 'lib' / PACKAGE
    assert sorted(path.name for path in folder.iterdir()) == PROGRAMS
    for path in folder.iterdir():
        assert os.access(path, os.X_OK)
        # ros2 run starts the file by its first line: it must name this environment, not the system's Python.
        interpreter = path.read_text().splitlines()[0].removeprefix('#!')
        assert Path(interpreter).parent == Path(sys.executable).parent


def test_shared_files_are_where_ros2_launch_looks(installed: Path):
    share = installed / 'share' / PACKAGE
    marker = installed / 'share' / 'ament_index' / 'resource_index' / 'packages' / PACKAGE
    assert marker.is_file()
    assert (share / 'package.xml').is_file()
    for folder in ('launch', 'config', 'models'):
        source = {path.relative_to(ROOT) for path in (ROOT / folder).rglob('*') if path.is_file()}
        source = {path for path in source if '__pycache__' not in path.parts}
        assert source == {path.relative_to(share) for path in (share / folder).rglob('*') if path.is_file()}
        assert source, f'{folder}/ is empty'


@pytest.mark.parametrize('program', PROGRAMS)
def test_help_is_instant(program: str, installed: Path, environment: dict[str, str], tmp_path: Path):
    script = installed / 'lib' / PACKAGE / program
    done = run(sys.executable, '-X', 'importtime', script, '--help', cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'usage: {program}')
    imported = {line.rpartition('|')[2].strip().partition('.')[0] for line in done.stderr.splitlines()}
    assert PACKAGE in imported, 'the list of imports was not understood'
    assert imported.isdisjoint(SLOW_TO_IMPORT)


def test_colcon_of_the_system_uses_the_active_environment(tmp_path: Path):
    # As with an apt-installed colcon: setup.py runs with one Python while another environment is active.
    python = tmp_path / 'venv' / 'bin' / f'python3.{sys.version_info.minor}'
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    done = run(
        sys.executable, 'setup.py', '--quiet',
        'egg_info', '--egg-base', tmp_path, 'build', '--build-base', tmp_path / 'build',
        'install', '--prefix', tmp_path / 'prefix', '--install-scripts', tmp_path / 'scripts',
        '--single-version-externally-managed', '--record', tmp_path / 'record',
        cwd=ROOT, env={**os.environ, 'VIRTUAL_ENV': str(tmp_path / 'venv')},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'scripts' / 'detect').read_text().splitlines()[0] == f'#!{python}'


def make_env(python: object, folder: Path, **environment: str) -> str:
    environment = {**os.environ, 'PYTHON': str(python), 'VENV': str(folder), 'ROS_DISTRO': '', **environment}
    done = run(ROOT / 'scripts' / 'make_env.sh', env=environment)
    assert done.returncode == 1
    assert not folder.exists()
    return done.stderr


def test_old_python_is_refused(tmp_path: Path):
    python = tmp_path / 'python3'
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.10\n[ "$1" = --version ]\n')
    python.chmod(0o755)
    message = make_env(python, tmp_path / 'venv')
    assert 'Python 3.8.10 is too old' in message
    assert 'PYTHON=' in message


def test_missing_python_is_told(tmp_path: Path):
    assert 'python9 is not there' in make_env('python9', tmp_path / 'venv')


def test_missing_compiler_is_told(tmp_path: Path):
    for tool in ('bash', 'dirname', 'env', 'realpath'):
        (tmp_path / tool).symlink_to(f'/usr/bin/{tool}')
    message = make_env(sys.executable, tmp_path / 'venv', PATH=str(tmp_path))
    assert 'no C++ compiler' in message
    assert 'CRF=0' in message
