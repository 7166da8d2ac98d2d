from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import moving_object_detector
from moving_object_detector.common.files import generator_path, share_folder
from moving_object_detector.networks.weights import load_weights

ROOT = Path(__file__).resolve().parents[2]


def test_the_source_tree():
    if Path(moving_object_detector.__file__).resolve().parents[1] != ROOT:
        pytest.skip('the package under test is installed, not that of this source tree')
    assert share_folder() == ROOT


def test_the_model_that_comes_with_the_package():
    assert generator_path() == share_folder() / 'models' / 'generator.safetensors'
    assert load_weights(generator_path(), 'generator')[1]['architecture'] == 'generator'


@pytest.fixture(params=['lib/python3.12/site-packages', 'local/lib/python3.10/dist-packages', 'Lib/site-packages'])
def installed(tmp_path, request):
    """The package as colcon or pip puts it under a prefix; returns the prefix and what asks it for its folder."""
    site = tmp_path / request.param
    target = site / 'moving_object_detector'
    target.mkdir(parents=True)
    shutil.copy(ROOT / 'moving_object_detector' / '__init__.py', target)
    shutil.copytree(ROOT / 'moving_object_detector' / 'common', target / 'common')

    def ask():
        code = 'from moving_object_detector.common.files import share_folder; print(share_folder())'
        environment = os.environ | {'PYTHONPATH': str(site)}
        return subprocess.run(
            [sys.executable, '-c', code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return tmp_path, site, ask


def make_share(folder):
    (folder / 'models').mkdir(parents=True)
    (folder / 'package.xml').write_text('<package/>')


def test_an_installed_package(installed):
    prefix, site, ask = installed
    (site / 'models').mkdir()  # of somebody else
    make_share(prefix / 'share' / 'moving_object_detector')
    assert ask().stdout.strip() == str(prefix / 'share' / 'moving_object_detector')


def test_an_incomplete_installation(installed):
    _, _, ask = installed
    run = ask()
    assert run.returncode == 1
    assert 'ModelError: the folder share/moving_object_detector with models/ is missing beside' in run.stderr
    assert 'install the package again' in run.stderr
