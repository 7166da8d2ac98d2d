"""A miniature of FBMS-59 in its published layout."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.layouts import read_fbms

DEFINITION = """Ground truth definition file; do not change!

Total number of regions:
{count}
{scales}
Confusion penality matrix:
0.0 1.0
1.0 0.0

Total number of frames in this shot:
{frames}
Total number of labeled frames for this shot:
{labelled}
{rows}"""


def definition(codes, frames, rows):
    return DEFINITION.format(
        count=len(codes),
        scales='\n'.join(f'\nScale of region {k}:\n{code}' for k, code in enumerate(codes)),
        frames=frames,
        labelled=len(rows),
        rows=''.join(f'Frame number:\n{k}\nFile name:\n{file}\nInput file name:\n{image}\n' for k, file, image in rows),
    )


def frames(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(folder / name), np.full((2, 3, 3), 90, np.uint8))


@pytest.fixture
def root(tmp_path):
    """``cars1`` is labelled in grey, ``marple6`` in colour with probabilities beside it, ``tennis`` not at all."""
    root = tmp_path / 'FBMS59'
    cars = root / 'Testset' / 'cars1'
    frames(cars, [f'cars1_{k:02d}.jpg' for k in range(1, 13)])
    (cars / 'cars1.bmf').write_text('12 1\n' + '\n'.join(f'cars1_{k:02d}.pgm' for k in range(1, 13)))
    truth = cars / 'GroundTruth'
    truth.mkdir()
    cv2.imwrite(str(truth / 'cars1_01_gt.pgm'), np.array([[255, 127, 0], [255, 255, 0]], np.uint8))
    cv2.imwrite(str(truth / 'cars1_10_gt.pgm'), np.full((2, 3), 255, np.uint8))
    rows = [(0, 'cars1_01_gt.pgm', 'cars1_01.pgm'), (9, 'cars1_10_gt.pgm', 'cars1_10.pgm')]
    (truth / 'cars1Def.dat').write_text(definition([255, 127, 0], 12, rows))

    marple = root / 'Testset' / 'marple6'
    frames(marple, ['marple6_98.jpg', 'marple6_99.jpg', 'marple6_100.jpg'])
    truth = marple / 'GroundTruth'
    truth.mkdir()
    for name in ('marple6_2_gt.ppm', 'marple6_2_PROB_gt.ppm'):
        (truth / name).write_bytes(b'P6\n3 2\n255\n' + bytes([255, 255, 255] * 4 + [255, 0, 0, 0, 0, 255]))
    rows = [(2, 'marple6_2_gt.ppm', '100.ppm'), (1, 'marple6_2_PROB_gt.ppm', 'marple6_99.ppm')]
    text = definition([16777215, 16711680, 255], 3, rows)
    (truth / 'marple6Def.dat').write_text(text.replace('\n', '\r\n'))

    frames(root / 'Trainingset' / 'tennis', [f'tennis{k}.jpg' for k in (8, 9, 10)])
    (root / 'Testset' / 'readme.txt').write_text('no sequence')
    return root


def test_few_frames_are_annotated(root):
    cars, marple = read_fbms(root, 'val')
    assert (cars.name, marple.name) == ('cars1', 'marple6')
    assert [image.name for image in cars.files] == [f'cars1_{k:02d}.jpg' for k in range(1, 13)]
    assert [k for k, annotation in enumerate(cars.annotations) if annotation] == [0, 9]
    assert cars.annotations[0]().tolist() == [[False, True, True], [False, False, True]]
    assert not cars.annotations[9]().any()


def test_colour_labels_probabilities_and_numbers(root):
    """The input file's name is not there as published, so the frame's number, from 0, tells which it is."""
    marple = read_fbms(root, 'test')[1]
    assert [image.name for image in marple.files] == ['marple6_98.jpg', 'marple6_99.jpg', 'marple6_100.jpg']
    assert [annotation is None for annotation in marple.annotations] == [True, True, False]
    assert marple.annotations[2]().tolist() == [[False, False, False], [False, True, True]]


def test_splits(root):
    assert [sequence.name for sequence in read_fbms(root, 'train')] == ['tennis']
    assert read_fbms(root, 'train')[0].annotations == ()
    assert [sequence.name for sequence in read_fbms(root, 'trainval')] == ['tennis', 'cars1', 'marple6']


def test_a_label_that_is_missing_or_beyond_the_end(root):
    truth = root / 'Testset' / 'cars1' / 'GroundTruth'
    (truth / 'cars1_10_gt.pgm').unlink()
    text = (truth / 'cars1Def.dat').read_text()
    (truth / 'cars1Def.dat').write_text(text.replace('cars1_01.pgm', 'other.pgm').replace('\n0\nFile', '\n12\nFile'))
    annotations = read_fbms(root, 'val')[0].annotations
    assert [k for k, annotation in enumerate(annotations) if annotation] == [9]
    with pytest.raises(UserError, match=r'cars1_10_gt\.pgm'):
        annotations[9]()


def test_a_code_that_the_definition_does_not_know_is_no_object(root):
    """As in the published ``cats04``; the official code takes it for the background."""
    label = np.array([[255, 127, 33], [255, 33, 0]], np.uint8)
    cv2.imwrite(str(root / 'Testset' / 'cars1' / 'GroundTruth' / 'cars1_01_gt.pgm'), label)
    cars = read_fbms(root, 'val')[0]
    assert cars.annotations[0]().tolist() == [[False, True, False], [False, False, True]]


def test_several_definitions(root):
    """All count, but for what a Mac leaves in archives; where two label a frame, the sequence's own does."""
    truth = root / 'Testset' / 'cars1' / 'GroundTruth'
    (truth / '._cars1Def.dat').write_bytes(b'\0\5\x16\7')
    for name, value in (('cars1_05_gt', 7), ('again_gt', 7)):
        cv2.imwrite(str(truth / f'{name}.pgm'), np.full((2, 3), value, np.uint8))
    rows = [(0, 'again_gt.pgm', 'cars1_01.pgm'), (4, 'cars1_05_gt.pgm', 'cars1_05.pgm')]
    (truth / 'cars1_moreDef.dat').write_text(definition([0, 7], 12, rows))
    annotations = read_fbms(root, 'val')[0].annotations
    assert [k for k, annotation in enumerate(annotations) if annotation] == [0, 4, 9]
    assert not annotations[0]().all()
    assert annotations[4]().all()


def test_frames_that_somebody_has_converted_count_once(root):
    cars = root / 'Testset' / 'cars1'
    for k in range(1, 13):
        cv2.imwrite(str(cars / f'cars1_{k:02d}.ppm'), np.full((2, 3, 3), 90, np.uint8))
    sequence = read_fbms(root, 'val')[0]
    assert [image.name for image in sequence.files] == [f'cars1_{k:02d}.jpg' for k in range(1, 13)]
    assert [k for k, annotation in enumerate(sequence.annotations) if annotation] == [0, 9]


def test_definitions_whose_headings_have_no_colon(root):
    path = root / 'Testset' / 'cars1' / 'GroundTruth' / 'cars1Def.dat'
    expected = read_fbms(root, 'val')[0]
    path.write_text(path.read_text().replace(':\n', '\n'))
    assert read_fbms(root, 'val')[0] == expected


def test_what_can_be_wrong(root):
    with pytest.raises(UserError, match=r'split all; .*train, val'):
        read_fbms(root, 'all')
    truth = root / 'Testset' / 'cars1' / 'GroundTruth' / 'cars1Def.dat'
    whole = truth.read_text()
    for damaged in (
        whole[:90],
        whole.replace('255', 'white', 1),
        whole.replace('region 0', 'region 5'),
        whole.replace('Input file name:\n', '', 1),
        '',
    ):
        truth.write_text(damaged)
        with pytest.raises(UserError, match=r'cars1Def\.dat'):
            read_fbms(root, 'val')
    shutil.rmtree(root / 'Testset')
    with pytest.raises(UserError, match='Testset is missing'):
        read_fbms(root, 'trainval')
    (root / 'Testset').mkdir()
    with pytest.raises(UserError, match='images in Testset'):
        read_fbms(root, 'val')
