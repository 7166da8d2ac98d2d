"""Masks that somebody else made: PNG files in DAVIS layout, and topics of recordings; what is missing counts."""

from __future__ import annotations

import re
import shutil

import cv2
import numpy as np
import pytest

from moving_object_detector.evaluation.evaluate import main
from moving_object_detector.evaluation.results import read_results
from moving_object_detector.media.bags import BagWriter
from moving_object_detector.media.messages import TYPES, encode_image

STAMPS = [1_700_000_000_000_000_000 + k * 50_000_001 for k in range(8)]


def truth(k, shape=(32, 48)):
    mask = np.zeros(shape, np.uint8)
    mask[4 + k : 20, 5:25] = 255
    return mask


def write(path, topics, *, latencies=()):
    """Write a bag of topics, each with images by frame number: colours or masks."""
    with BagWriter(path) as bag:
        for topic, images in topics.items():
            for k, image in images.items():
                bag.write_image(topic, STAMPS[k], encode_image(image, 'mono8' if image.ndim == 2 else 'rgb8'))
        for number, latency in enumerate(latencies):
            message = TYPES.types['std_msgs/msg/Float64'](data=latency)
            data = bytes(TYPES.serialize_cdr(message, 'std_msgs/msg/Float64'))
            bag.write_raw('/detect/debug/pipeline_latency_ms', 'std_msgs/msg/Float64', STAMPS[number], data)
    return path


@pytest.fixture
def footage(pictures):
    return {k: pictures[k] for k in range(8)}


def scored(*arguments, out):
    assert main([*map(str, arguments), '--out', str(out)]) == 0
    return read_results(out)


def test_the_truth_as_prediction_scores_one(davis, tmp_path, capsys):
    result = scored('--root', davis, '--predictions', davis / 'Annotations' / '480p', out=tmp_path / 'out')
    assert result.identity['method'] == 'masks'
    # How long the masks took to make, nobody knows.
    assert capsys.readouterr().out.splitlines()[-1] == 'J 1.000 F 1.000 frames 12 fps -'
    assert 'Speed' not in (tmp_path / 'out' / 'report.html').read_text()
    for sequence in result.sequences:
        assert set(sequence.variants['masks'].j) == set(sequence.variants['masks'].f) == {1.0}
        assert sequence.problems == ()


def test_the_masks_of_another_run_score_as_that_run(davis, tmp_path):
    first = scored('--root', davis, '--method', 'homography', '--save-masks', out=tmp_path / 'first')
    again = scored('--root', davis, '--predictions', tmp_path / 'first' / 'masks', out=tmp_path / 'again')
    for one, other in zip(first.sequences, again.sequences, strict=True):
        assert one.variants['homography'] == other.variants['masks']


def test_missing_masks_count_as_empty_and_are_said(davis, tmp_path, capsys):
    masks = tmp_path / 'masks'
    shutil.copytree(davis / 'Annotations' / '480p', masks)
    (masks / 'wander' / '00002.png').unlink()
    (masks / 'wander' / '00003.png').write_bytes(b'damaged')
    (masks / 'wander' / 'of_no_frame.png').write_bytes((masks / 'wander' / '00001.png').read_bytes())
    shutil.rmtree(masks / 'blink')
    wander, blink = scored('--root', davis, '--predictions', masks, out=tmp_path / 'out').sequences
    assert wander.variants['masks'].j == (1, 1, 0, 0, 1, 1)
    assert (wander.dropped, blink.dropped) == (2, 6)
    text = ' | '.join(wander.problems)
    assert '2 of 6 frames have no mask' in text
    assert '2 of 6 masks' in text
    assert '6 of 6 frames have no mask' in ' | '.join(blink.problems)
    assert '8 frames have no mask' in capsys.readouterr().err


def test_a_recording_with_images_truth_and_masks(tmp_path, footage, capsys):
    """Frames 0 and 5 have no mask, as when a node is behind; frame 3's is wrong. The topics need no --bag-topic."""
    masks = {k: truth(k) for k in (1, 2, 3, 4, 6, 7)} | {3: np.zeros((32, 48), np.uint8)}
    topics = {'/camera': footage, '/truth': {k: truth(k) for k in range(8)}, '/detect/mask': masks}
    bag = write(tmp_path / 'ride', topics, latencies=(5.0, 6.0, 7.0))
    arguments = ('--dataset', 'bag', '--root', bag, '--mask-topic', '/truth', '--predicted-topic', '/detect/mask')
    (ride,) = scored(*arguments, out=tmp_path / 'out').sequences
    assert ride.variants['masks'].j == (0, 1, 1, 0, 1, 0, 1, 1)
    assert [value is None for value in ride.variants['masks'].area] == [k in {0, 5} for k in range(8)]
    assert ride.latency == (5.0, 6.0, 7.0)
    assert '2 of 8 frames have no mask in /detect/mask' in ' | '.join(ride.problems)
    captured = capsys.readouterr()
    assert '2 frames have no mask' in captured.err
    # They came at 20 a second, whatever scoring them took.
    assert re.fullmatch(r'J 0.625 F \S+ frames 8 fps 20.00', captured.out.splitlines()[-1])


@pytest.mark.parametrize('single', [False, True], ids=['folder', 'file'])
def test_masks_in_a_bag_of_their_own(tmp_path, footage, single):
    """As a live run leaves them: images and truth in one bag, masks under the images' stamps in another."""
    ride = write(tmp_path / 'ride', {'/camera': footage, '/truth': {k: truth(k) for k in range(8)}})
    live = write(tmp_path / 'live', {'/detect/mask': {k: truth(k) for k in range(8)}})
    root = next(ride.glob('*.mcap')) if single else ride
    arguments = ('--dataset', 'bag', '--root', root, '--mask-topic', '/truth', '--predictions', live)
    (result,) = scored(*arguments, out=tmp_path / 'out').sequences
    assert set(result.variants['masks'].j) == {1.0}
    assert result.problems == ()


def test_masks_of_a_folder_that_was_played(tmp_path, footage):
    """A folder's stamps begin at 0, which in ROS is no time: it is played from one second on."""
    folder = tmp_path / 'clip'
    for k, image in footage.items():
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f'{k}.png'), image)
    with BagWriter(tmp_path / 'live') as bag:
        for k in range(8):
            mask = encode_image(truth(k), 'mono8')
            bag.write_image('/detect/mask', 10**9 + round(k * 10**9 / 24), mask)
    arguments = ('--dataset', 'folder', '--root', folder, '--predictions', tmp_path / 'live')
    (result,) = scored(*arguments, out=tmp_path / 'out').sequences
    assert result.variants['masks'].area == tuple(float((truth(k) > 0).mean()) for k in range(8))


def test_mistakes(tmp_path, footage, davis, capsys):
    bag = write(tmp_path / 'ride', {'/camera': footage})
    assert (
        main(['--dataset', 'bag', '--root', str(bag), '--predicted-topic', '/gone', '--out', str(tmp_path / 'o')]) == 2
    )
    assert '/gone' in capsys.readouterr().err
    assert main(['--root', str(davis), '--predictions', str(tmp_path / 'none'), '--out', str(tmp_path / 'o')]) == 2
    assert 'none: no such file' in capsys.readouterr().err
    masks = ['--root', str(davis), '--predictions', str(davis / 'Annotations' / '480p'), '--predicted-topic', '/mask']
    assert main([*masks, '--out', str(tmp_path / 'o')]) == 2
    assert '--predicted-topic' in capsys.readouterr().err
    assert main(['--root', str(davis), '--method', 'masks', '--out', str(tmp_path / 'o')]) == 2
    assert '--predictions' in capsys.readouterr().err
