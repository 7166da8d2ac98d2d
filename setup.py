"""Installs the package where ``ros2 run`` and ``ros2 launch`` look for it; ``colcon build`` calls this."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from runpy import run_path
from xml.etree import ElementTree as ET

from setuptools import find_packages, setup

PROGRAMS = run_path('moving_object_detector/programs/__init__.py')['PROGRAMS']


def script_interpreter() -> str:
    """Return the Python for the first line of the installed programs.

    An apt-installed colcon runs this file with the system's Python although a virtual environment is active;
    the programs would then miss what is installed only in the environment.
    """
    environment = os.environ.get('VIRTUAL_ENV', '')
    candidate = Path(environment, 'bin', f'python3.{sys.version_info.minor}')
    return str(candidate) if environment and candidate.exists() else sys.executable


def shared_files() -> list[tuple[str, list[str]]]:
    """Return what goes to ``share/``, as pairs of folder and files."""
    share = Path('share', name)
    pairs = [('share/ament_index/resource_index/packages', [f'resource/{name}']), (str(share), ['package.xml'])]
    for top in ('launch', 'config', 'models'):
        for folder in (Path(top), *(path for path in sorted(Path(top).rglob('*')) if path.is_dir())):
            files = [str(path) for path in sorted(folder.iterdir()) if path.is_file()]
            if files and '__pycache__' not in folder.parts:
                pairs.append((str(share / folder), files))
    return pairs


manifest = ET.parse('package.xml').getroot()
name = manifest.findtext('name', '')
maintainer = manifest.find('maintainer')
assert maintainer is not None

setup(
    name=name,
    version=manifest.findtext('version', ''),
    description=manifest.findtext('description', ''),
    license=manifest.findtext('license', ''),
    maintainer=maintainer.text,
    maintainer_email=maintainer.get('email'),
    python_requires='>=3.10',
    # What makes `colcon test` take pytest.
    extras_require={'test': ['pytest']},
    packages=find_packages(include=[name, f'{name}.*']),
    package_data={name: ['py.typed', 'evaluation/report.html', 'nodes/view.html']},
    data_files=shared_files(),
    zip_safe=False,
    options={'build_scripts': {'executable': script_interpreter()}},
    entry_points={
        'console_scripts': [f'{program} = {name}.{start}' for program, (start, _) in PROGRAMS.items()],
    },
)
