"""The demo: real processes, ROS 2 between them, results that fit together."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import cv2
import pytest
from rosbags.highlevel import AnyReader

from moving_object_detector.nodes.playthrough import isolated_environment

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = 'moving_object_detector'
FRAMES = 12


@pytest.fixture(scope='module')
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths as ``source install/setup.bash`` sets them, for a prefix whose programs are those of the source tree."""
    if find_spec('rclpy') is None:
        pytest.skip('rclpy is not installed here: source ROS 2 or install its wheels')
    prefix = tmp_path_factory.mktemp('prefix')
    marker = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages' / PACKAGE
    marker.parent.mkdir(parents=True)
    marker.touch()
    (prefix / 'share' / PACKAGE).symlink_to(ROOT)
    programs = prefix / 'lib' / PACKAGE
    programs.mkdir(parents=True)
    modules = dict.fromkeys(('detect', 'play', 'record'), 'nodes') | {'contact_sheet': 'tools', 'render': 'synthetic'}
    for name, folder in modules.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {PACKAGE}.{folder}.{name} "$@"\n')
        (programs / name).chmod(0o755)
    paths = {'AMENT_PREFIX_PATH': str(prefix), 'PYTHONPATH': str(ROOT)}
    joined = {name: os.pathsep.join(filter(None, [path, os.environ.get(name)])) for name, path in paths.items()}
    return {**os.environ, **joined}


def demo(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', f'{PACKAGE}.nodes.demo', *map(str, arguments)]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=280)


def test_rendered_clip_becomes_video_masks_and_sheet(environment: dict[str, str], tmp_path: Path):
    done = demo(environment, '--frames', FRAMES, '--rate', '0.1', '--out', tmp_path)
    log = (tmp_path / 'node.log').read_text() if (tmp_path / 'node.log').exists() else ''
    assert done.returncode == 0, done.stderr + log
    summary, machine = done.stdout.splitlines()[-2:]
    found = re.fullmatch(
        r'frames (\d+), masks (\d+), dropped (\d+), skipped (\d+), latency median [\d.]+ ms, '
        r'p95 [\d.]+ ms, window delay \d+ frames',
        summary,
    )
    assert found, summary
    frames, masks, dropped, skipped = map(int, found.groups())
    # Played at a tenth of 24 frames a second, whatever the machine could do.
    possible, played = map(float, re.findall(r'([\d.]+) frames/s', machine))
    assert played < 3
    assert possible > played
    assert frames == FRAMES
    # On a busy machine some are skipped, but none is unaccounted for.
    assert masks > 0
    assert masks + dropped + skipped >= frames
    video = cv2.VideoCapture(str(tmp_path / 'overlay.mp4'))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == masks
    assert int(video.get(cv2.CAP_PROP_FRAME_WIDTH)) == 640
    with AnyReader([tmp_path / 'masks']) as bag:
        messages = [bag.deserialize(raw, connection.msgtype) for connection, _, raw in bag.messages()]
    assert len(messages) == masks
    assert {message.encoding for message in messages} == {'mono8'}
    stamps = [message.header.stamp.sec + message.header.stamp.nanosec * 1e-9 for message in messages]
    # Outputs carry the stamps of their frames: the clip's own 24 frames a second, in order.
    steps = [(after - before) * 24 for before, after in pairwise(stamps)]
    assert all(step > 0.5 and abs(step - round(step)) < 1e-3 for step in steps)
    assert cv2.imread(str(tmp_path / 'contact_sheet.png')) is not None


def test_wrong_input_is_told_before_anything_is_loaded(environment: dict[str, str], tmp_path: Path):
    done = demo(environment, tmp_path / 'absent', '--out', tmp_path / 'out')
    assert done.returncode == 2
    assert 'absent' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'out' / 'node.log').exists()


def test_detector_that_refuses_ends_the_demo_with_its_reason(environment: dict[str, str], tmp_path: Path):
    parameters = tmp_path / 'wrong.yaml'
    parameters.write_text('/**:\n  ros__parameters:\n    model: /no/such/file.safetensors\n')
    done = demo(environment, '--frames', 2, '--params', parameters, '--out', tmp_path / 'out')
    assert done.returncode == 2, done.stdout + done.stderr
    assert '/no/such/file.safetensors' in done.stderr


def test_missing_parameters_file_is_told(environment: dict[str, str], tmp_path: Path):
    done = demo(environment, '--params', tmp_path / 'absent.yaml', '--out', tmp_path / 'out')
    assert done.returncode == 2
    assert 'absent.yaml' in done.stderr


def test_demo_keeps_to_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', '0')
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    environment = isolated_environment(None)
    assert 1 <= int(environment['ROS_DOMAIN_ID']) <= 101
    assert environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    assert isolated_environment(7)['ROS_DOMAIN_ID'] == '7'
    assert isolated_environment(7)['ROS_LOCALHOST_ONLY'] == '1'
