from __future__ import annotations

import cv2
import numpy as np
import pytest

from moving_object_detector.media.pictures import read_flow
from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene
from moving_object_detector.synthetic.render import main

ARGUMENTS = ['--frames', '4', '--seed', '3', '--height', '48', '--width', '80', '--objects', '1', '1']


def test_files_are_those_of_the_scene(tmp_path):
    out = tmp_path / 'new' / 'clip'
    assert main([str(out), *ARGUMENTS, '--flow']) == 0
    scene = clip_scene(3, SceneOptions(size=(48, 80), objects=(1, 1)))
    assert sorted(path.name for path in out.iterdir()) == ['flow', 'frames', 'masks']
    for folder, suffix in (('frames', 'png'), ('masks', 'png'), ('flow', 'flo')):
        assert sorted(path.name for path in (out / folder).iterdir()) == [f'{k:05d}.{suffix}' for k in range(4)]
    for time in range(4):
        frame = cv2.imread(str(out / 'frames' / f'{time:05d}.png'))[:, :, ::-1]
        assert np.array_equal(frame, scene.image(time))
        mask = cv2.imread(str(out / 'masks' / f'{time:05d}.png'), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, np.where(scene.mask(time), 255, 0))
        assert mask.dtype == np.uint8
        assert np.array_equal(read_flow(out / 'flow' / f'{time:05d}.flo'), scene.flow(time, time + 1))


def test_flow_is_written_when_asked_for_only(tmp_path):
    assert main([str(tmp_path), '--frames', '1', '--height', '32', '--width', '32']) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ['frames', 'masks']
    assert len(list((tmp_path / 'frames').iterdir())) == 1


@pytest.mark.parametrize(
    'wrong', [['--seed', '-1'], ['--objects', '2', '1'], ['--objects', '-1', '1'], ['--height', '31'], ['--width', '8']]
)
def test_wrong_arguments(tmp_path, capsys, wrong):
    assert main([str(tmp_path / 'clip'), *ARGUMENTS, *wrong]) == 2
    assert capsys.readouterr().err.startswith('error: --seed takes 0 or more, --objects LEAST not above MOST')
    assert not (tmp_path / 'clip').exists()


def test_no_frames(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), '--frames', '0'])
    assert stopped.value.code == 2
    assert '--frames: 0 is not above 0' in capsys.readouterr().err


def test_a_file_in_place_of_the_folder(tmp_path, capsys):
    (tmp_path / 'clip').write_text('')
    assert main([str(tmp_path / 'clip'), *ARGUMENTS]) == 2
    assert 'clip/frames cannot be made a folder' in capsys.readouterr().err
