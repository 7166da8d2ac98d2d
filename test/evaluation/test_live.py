"""A bag through the real node over DDS, as a method to score; and what is made of a recording, laid out by hand."""

from __future__ import annotations

import json
from importlib.util import find_spec

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.datasets.bag import BagSource
from moving_object_detector.datasets.frames import Frame
from moving_object_detector.datasets.messages import encode_image
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.evaluation.detector_method import DetectorMethod
from moving_object_detector.evaluation.live import LiveMethod, read_recording
from moving_object_detector.tools.bags import BagWriter

STAMPS = [1_700_000_000_000_000_000 + k * 41_666_667 for k in range(20)]
# Small and quick.
PARAMETERS = """/**:
  ros__parameters:
    engine: torch
    threads: 1
    height: 64
    width: 128
    window.past: 1
    window.future: 1
    refinement.method: none
"""


def scene(k):
    """A textured square that moves three pixels a frame before a textured background, (96, 128, 3) RGB."""
    rng = np.random.default_rng(3)
    image = cv2.resize(rng.integers(0, 256, (24, 32, 3), np.uint8), (128, 96), interpolation=cv2.INTER_CUBIC)
    square = cv2.resize(rng.integers(0, 256, (11, 11, 3), np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC)
    image[32:64, 20 + 3 * k : 52 + 3 * k] = square
    return image


@pytest.fixture
def parameters(tmp_path):
    path = tmp_path / 'small.yaml'
    path.write_text(PARAMETERS)
    return path


def give(method, source):
    """What a method says of a source: masks by frame."""
    found = {}
    for index, frame in enumerate(source):
        found |= {finding.index: finding for finding in method.step(frame, index)}
    return found | {finding.index: finding for finding in method.finish()}


@pytest.mark.timeout(600)
def test_a_bag_through_the_node(tmp_path, parameters, ros_environment, monkeypatch):
    for name, value in ros_environment.items():
        monkeypatch.setenv(name, value)
    broken = encode_image(scene(0), 'rgb8')
    with BagWriter(tmp_path / 'bag') as bag:
        for k, stamp in enumerate(STAMPS):
            image = encode_image(scene(k), 'rgb8')
            # One image that does not decode is one frame lost, not the clip.
            bag.write_image('/front/image', stamp, broken._replace(data=broken.data[:50]) if k == 19 else image)
    source = BagSource(tmp_path / 'bag', topic='/front/image')
    domain = int(ros_environment['ROS_DOMAIN_ID'])
    method = LiveMethod(parameters, 0.2, tmp_path / 'live', domain=domain)
    assert method.start('bag', source) == read_recording(tmp_path / 'live' / 'bag').problems
    recording = read_recording(tmp_path / 'live' / 'bag')
    log = (tmp_path / 'live' / 'bag' / 'node.log').read_text()
    counts = recording.counts
    assert (counts['played'], counts['lost'] + counts['received']) == (19, 19), log
    assert counts['published'] == counts['recorded'] == len(recording.masks)
    assert 0 < len(recording.masks) <= counts['processed']
    assert len(recording.latencies) >= len(recording.masks) - 1  # the last mask is flushed, by no image
    assert all(0 < latency < 60_000 for latency in recording.latencies)

    frames = [Frame(scene(k), stamp, '') for k, stamp in enumerate(STAMPS[:19])]
    live = give(method, frames)
    assert len(live) == len(recording.masks)
    for index, finding in live.items():
        np.testing.assert_array_equal(finding.image, frames[index].image)
        assert (finding.variant, finding.mask.dtype, set(np.unique(finding.mask)) <= {0, 255}) == (
            'live',
            np.uint8,
            True,
        )
    detector = DetectorMethod(load_config(DetectorConfig(), parameters), ('refined',))
    detector.start('bag', source)
    offline = give(detector, frames)
    # Where the node was behind, a frame lacks its later neighbour.
    whole = [index for index in live if index + 1 in live]
    assert len(whole) >= 5
    assert any(live[index].mask.any() for index in whole)
    for index in whole:
        assert np.mean(live[index].mask != offline[index].mask) < 0.01


def lay_out(folder, frames=(), latencies=(), **changes):
    """A recording as ``live`` leaves it."""
    folder.mkdir(exist_ok=True)
    counts = {'played': 4, 'lost': 0, 'received': 4, 'published': len(frames), 'recorded': len(frames), **changes}
    rates = {'asked': 24.0, 'played': 24.0, 'detected': 20.0}
    (folder / 'live.json').write_text(json.dumps({'frames': counts, 'frames per second': rates}))
    with BagWriter(folder / 'masks', overwrite=True) as bag:
        for stamp in frames:
            bag.write_image('/detect/mask', stamp, encode_image(np.full((4, 6), 255, np.uint8), 'mono8'))
        for number, latency in enumerate(latencies):
            message = bag.typestore.types['std_msgs/msg/Float64'](data=latency)
            data = bytes(bag.typestore.serialize_cdr(message, 'std_msgs/msg/Float64'))
            bag.write_raw('/detect/debug/pipeline_latency_ms', 'std_msgs/msg/Float64', 5 * 10**9 + number, data)
    return folder


def played(method, folder):
    method.take(read_recording(folder))
    return method


def images(*stamps):
    return [Frame(np.zeros((4, 6, 3), np.uint8), stamp, '') for stamp in stamps]


def test_frames_get_the_mask_of_their_stamp_and_others_none(tmp_path, parameters):
    folder = lay_out(tmp_path / 'clip', (100, 300, 400), (7.5, 8.5))
    method = played(LiveMethod(parameters, 1.0, tmp_path), folder)
    found = give(method, images(100, 200, 300, 300, 400))
    assert {index: finding.latency for index, finding in found.items()} == {0: 7.5, 2: 8.5, 4: None}
    # 200 has no mask; the second image of 300 is a repetition, which the detector leaves out.


def test_stamps_from_zero_are_played_a_second_later(tmp_path, parameters):
    folder = lay_out(tmp_path / 'clip', (10**9, 10**9 + 50))
    assert list(give(played(LiveMethod(parameters, 1.0, tmp_path), folder), images(0, 50))) == [0, 1]


def test_a_detector_that_said_nothing_missed_all(tmp_path, parameters):
    method = played(LiveMethod(parameters, 1.0, tmp_path), lay_out(tmp_path / 'clip'))
    assert give(method, images(1, 2, 3)) == {}


def test_what_was_not_as_it_should_be_is_told(tmp_path):
    folder = lay_out(tmp_path / 'clip', (100,), lost=3, published=2)
    report = json.loads((folder / 'live.json').read_text())
    report['frames per second']['played'] = 12.0
    (folder / 'live.json').write_text(json.dumps(report))
    lost, unrecorded, slow = read_recording(folder).problems
    assert lost.startswith('3 of 4 images never came to the detector')
    assert unrecorded == '1 masks were published and not recorded'
    assert slow.startswith('played at 12.0 frames/s, not at 24.0')
    (folder / 'live.json').unlink()
    with pytest.raises(UserError, match='play the clip again'):
        read_recording(folder)


def test_what_decides_the_masks_is_known(tmp_path, parameters):
    method = LiveMethod(parameters, 0.5, tmp_path, settings=['window.past=3'])
    assert method.identity['rate'] == 0.5
    assert method.identity['configuration']['window'] == {'past': 3, 'future': 1, 'stride': 1}
    assert len(method.identity['model']) == 64
    with pytest.raises(UserError, match='nonsense'):
        LiveMethod(parameters, 0.5, tmp_path, settings=['nonsense=3'])


def test_a_clip_that_cannot_be_played_is_told(tmp_path, parameters, picture_folder, monkeypatch):
    from moving_object_detector.datasets.folder import FolderSource, ImageFiles

    if find_spec('rclpy') is None:
        pytest.skip('rclpy is not installed here: source ROS 2 or install its wheels')
    method = LiveMethod(parameters, 1.0, tmp_path)
    files = sorted(picture_folder.iterdir())
    with pytest.raises(UserError, match='only a bag, a folder of frames or a video'):
        method.start('clip', ImageFiles('clip', files))
    source = FolderSource(picture_folder)
    source.name = str(tmp_path / 'empty')
    (tmp_path / 'empty').mkdir()
    # The program's own words, from its process.
    with pytest.raises(UserError, match=f'^{tmp_path}/empty: no image in this folder'):
        method.start('clip', source)
