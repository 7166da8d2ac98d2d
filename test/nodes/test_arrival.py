"""Images of a camera's size reach the node, with nothing set but the topic."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from detect_bench import SETTLED

IMAGES = 80


@pytest.fixture(scope='module')
def detect(start_detect):
    return start_detect(arguments=['-r', 'image:=/front/image_raw'], topic='/front/image_raw')


# Other work on the machine can make a rate miss; twice in a row it is the code.
@pytest.mark.flaky(reruns=2)
@pytest.mark.parametrize(('width', 'height', 'rate'), [(640, 480, 10), (1280, 720, 5)])
def test_raw_images_of_a_camera_arrive(detect, start, tmp_path, width, height, rate):
    noise = np.random.default_rng(1).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    for index in range(IMAGES):
        cv2.imwrite(str(tmp_path / f'{index:03d}.jpg'), np.roll(picture, 2 * index, axis=1))
    detect.wait_state('active')
    before = detect.counts()['received']
    play = start('play', tmp_path, '--topic', '/front/image_raw', '--fps', rate)
    detect.wait(lambda: play.poll() is not None, 'end of play', limit=120)
    out, err = play.communicate()
    assert f'{IMAGES} frames published' in out, err
    detect.wait_status(
        lambda _, values: int(values['frames received']) - before >= 78, 'at least 78 of 80 images', still=SETTLED
    )
    assert detect.values['image reliability'] == 'reliable'
