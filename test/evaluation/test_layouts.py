"""Each protocol on a miniature of its data set in the published layout, with the data set's mean worked out by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from moving_object_detector.datasets.layouts import (
    clip_annotations,
    clip_of_images,
    read_davis,
    read_fbms,
    read_segtrack,
)
from moving_object_detector.evaluation.metrics import PreparedTruth, count_objects
from moving_object_detector.evaluation.results import (
    SequenceResult,
    VariantColumns,
    scores_of,
)
from moving_object_detector.media.sources import list_images

HEIGHT, WIDTH = 12, 20


def box(left, right, value=255):
    """An upright bar from column ``left`` to before ``right``."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, left:right] = value
    return mask


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def scored(protocol, sequences, prediction):
    """Score one mask that a method gives for every frame of all sequences."""
    results = []
    for sequence in sequences:
        rows = []
        for annotation in sequence.annotations or (None,) * len(sequence.files):
            if annotation is None:
                rows.append((None,) * 5)
                continue
            truth = annotation()
            rows.append((*PreparedTruth(truth).scores(prediction > 0), *count_objects(prediction > 0, truth)))
        columns = VariantColumns(*zip(*rows, strict=True), area=(float((prediction > 0).mean()),) * len(rows))
        size = (HEIGHT, WIDTH)
        results.append(SequenceResult(sequence.name, len(rows), size, 24.0, 1.0, {'mask': columns}))
    return scores_of(results, 'mask', protocol), {item.name: scores_of([item], 'mask', protocol) for item in results}


PREDICTION = box(0, 8)
"""J of it: 1 with bars of 8 columns, half with one of 4, 0 with nothing."""


def test_davis(tmp_path, write_davis):
    """The ends are not scored, and the long sequence counts as much as the short one."""
    truths = {
        # J: - 1 0.5 -
        'bear': [box(10, 18), box(0, 8), box(0, 4), box(10, 18)],
        # J: - 0.5 0.5 0 0.5 0.5 0 -; empty masks as in bmx-bumps
        'bmx-bumps': [box(0, 8), *[box(0, 4), box(0, 4), box(0, 0)] * 2, box(0, 8)],
    }
    write_davis(tmp_path, 'val', {name: [(box(0, 3), mask) for mask in masks] for name, masks in truths.items()})
    # One mask has been saved as colours, one with 1 for the object.
    save(tmp_path / 'Annotations' / '480p' / 'bear' / '00001.png', np.dstack([box(0, 8), box(0, 0), box(0, 0)]))
    save(tmp_path / 'Annotations' / '480p' / 'bear' / '00002.png', box(0, 4, 1))

    run, sequences = scored('davis2016', read_davis(tmp_path, 'val'), PREDICTION)
    assert sequences['bear'].j_mean == pytest.approx((1 + 0.5) / 2)
    assert sequences['bmx-bumps'].j_mean == pytest.approx(4 * 0.5 / 6)
    assert run.j_mean == pytest.approx((0.75 + 1 / 3) / 2)
    assert run.frames == 8
    assert run.j_recall == pytest.approx((0.5 + 0) / 2)  # 0.5 itself is not over it
    # Edges at columns 8 and 4 are 4 apart, more than the tolerance of 1; without an edge in the truth F is 0.
    assert run.f_mean == pytest.approx((0.5 + 0) / 2)
    assert (run.objects, run.found, run.false_regions) == (6, 6, 2)


def test_davis_without_some_annotations(tmp_path, write_davis):
    """A frame without one is left out; the ends are those of the sequence, not of what is annotated."""
    masks = box(0, 8), box(0, 4), box(0, 8), box(0, 8), box(10, 18)
    write_davis(tmp_path, 'train', {'bear': [(box(0, 3), mask) for mask in masks]})
    for k in (0, 2):
        (tmp_path / 'Annotations' / '480p' / 'bear' / f'{k:05d}.png').unlink()
    run, _ = scored('davis2016', read_davis(tmp_path, 'train'), PREDICTION)
    assert (run.frames, run.j_mean) == (2, pytest.approx(0.75))


def test_segtrack(tmp_path):
    """All frames count, the same in long and short sequences; objects are united."""
    for k in range(3):
        save(tmp_path / 'JPEGImages' / 'cheetah' / f'cheetah_{k}.png', box(0, 3))
        # United they are bars of 8 columns: J 1; in the last frame the second has left: J 0.5.
        save(tmp_path / 'GroundTruth' / 'cheetah' / '1' / f'cheetah_{k}.bmp', box(0, 4))
        save(tmp_path / 'GroundTruth' / 'cheetah' / '2' / f'cheetah_{k}.png', box(4, 8) if k < 2 else box(0, 0))
    # J 0, then 0.5; there is a mask of no frame, and no mask of the last frame.
    for k, mask in enumerate((box(10, 14), box(0, 4), None)):
        save(tmp_path / 'JPEGImages' / 'worm' / f'worm_{k}.png', box(0, 3))
        if mask is not None:
            save(tmp_path / 'GroundTruth' / 'worm' / f'worm_{k}.png', mask)
    save(tmp_path / 'GroundTruth' / 'worm' / '0000000000.png', box(0, 8))
    sets = tmp_path / 'ImageSets'
    sets.mkdir()
    (sets / 'all.txt').write_text('*cheetah\n*worm\n')
    for name in ('cheetah', 'worm'):
        (sets / f'{name}.txt').write_text('\n'.join([name, *(f'{name}_{k}' for k in range(3))]))

    run, sequences = scored('segtrackv2', read_segtrack(tmp_path), PREDICTION)
    assert sequences['cheetah'].j_mean == pytest.approx(2.5 / 3)
    assert sequences['worm'].j_mean == pytest.approx(0.25)
    assert run.frames == 5
    assert run.j_mean == pytest.approx(3.0 / 5)
    assert run.j_recall == pytest.approx(2 / 5)
    # Touching objects of one frame are one component: 3 + 2; the first of worm is missed by a false region.
    assert (run.objects, run.found, run.false_regions) == (5, 4, 1)


DEFINITION = """Ground truth definition file; do not change!

Total number of regions:
{count}

{scales}
Confusion penality matrix:
{matrix}

Total number of frames in this shot:
{frames}
Total number of labeled frames for this shot:
{labelled}
{rows}"""


def definition(codes, frames, rows):
    return DEFINITION.format(
        count=len(codes),
        scales=''.join(f'Scale of region {k}:\n{code}\n\n' for k, code in enumerate(codes)),
        matrix='\n'.join(' '.join('0.0' if a == b else '1.0' for a in codes) for b in codes),
        frames=frames,
        labelled=len(rows),
        rows=''.join(f'Frame number:\n{k}\nFile name:\n{file}\nInput file name:\n{image}\n' for k, file, image in rows),
    )


def test_fbms(tmp_path):
    """Annotated frames of the test set alone, each the same; region 0 is background, whatever its code."""
    cars = tmp_path / 'Testset' / 'cars1'
    for k in range(1, 12):
        save(cars / f'cars1_{k:02d}.jpg', box(0, 3))
    (cars / 'cars1.bmf').write_text('11 1\n' + '\n'.join(f'cars1_{k:02d}.ppm' for k in range(1, 12)))
    # Grey: white is background. Two cars side by side are united: J 1. In frame 10 one of half the width: J 0.5.
    two = np.full((HEIGHT, WIDTH), 255, np.uint8)
    two[:, :4], two[:, 4:8] = 127, 0
    one = np.full((HEIGHT, WIDTH), 255, np.uint8)
    one[:, :4] = 127
    save(cars / 'GroundTruth' / 'cars1_01_gt.pgm', two)
    save(cars / 'GroundTruth' / 'cars1_10_gt.pgm', one)
    rows = [(0, 'cars1_01_gt.pgm', 'cars1_01.ppm'), (9, 'cars1_10_gt.pgm', 'cars1_10.ppm')]
    (cars / 'GroundTruth' / 'cars1Def.dat').write_text(definition([255, 127, 0], 11, rows))

    # Colours, background black; a code that the definition does not have is background: J 0.5. With probabilities.
    cats = tmp_path / 'Testset' / 'cats04'
    for k in range(1, 4):
        save(cats / f'cats04_{k:04d}.jpg', box(0, 3))
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[:, :4] = (1, 2, 200)  # blue, green, red, as OpenCV writes them
    colours[:, 12:15] = (9, 9, 9)
    save(cats / 'GroundTruth' / 'cats04_0002_gt.ppm', colours)
    save(cats / 'GroundTruth' / 'cats04_0002_PROB_gt.pgm', box(0, 20))
    rows = [(1, 'cats04_0002_PROB_gt.pgm', 'cats04_0002.ppm'), (1, 'cats04_0002_gt.ppm', 'cats04_0002.ppm')]
    text = definition([0, 200 * 65536 + 2 * 256 + 1], 3, rows)
    (cats / 'GroundTruth' / 'cats04Def.dat').write_text(text.replace('\n', '\r\n'))

    # No labels at all, and a training sequence, which does not count.
    save(tmp_path / 'Testset' / 'tennis' / 'tennis454.jpg', box(0, 3))
    other = tmp_path / 'Trainingset' / 'bear01'
    save(other / 'bear01_0001.jpg', box(0, 3))
    save(other / 'GroundTruth' / 'bear01_0001_gt.pgm', box(10, 12))
    rows = [(0, 'bear01_0001_gt.pgm', 'bear01_0001.pgm')]
    (other / 'GroundTruth' / 'bear01Def.dat').write_text(definition([0, 255], 1, rows))

    run, sequences = scored('fbms59', read_fbms(tmp_path, 'test'), PREDICTION)
    assert {name: scores.frames for name, scores in sequences.items()} == {'cars1': 2, 'cats04': 1, 'tennis': 0}
    assert sequences['tennis'].j_mean is None
    assert run.frames == 3
    assert run.j_mean == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert run.f_mean == pytest.approx((1 + 0 + 0) / 3)


def test_folders_with_masks(tmp_path):
    """Frames of any names with masks beside them: all annotated frames, then the mean of the clips."""
    for clip, masks in {
        'yard': [box(0, 8), None, box(0, 4)],
        'street': [box(10, 18)],
        'still': [box(0, 0)] * 2,
    }.items():
        for k, mask in enumerate(masks):
            save(tmp_path / 'frames' / clip / f'shot{k}.jpg', box(0, 3))
            if mask is not None:
                save(tmp_path / 'masks' / clip / f'shot{k}.png', mask)
    clips = {folder.name: list_images(folder) for folder in sorted((tmp_path / 'frames').iterdir())}
    found = clip_annotations(clips, tmp_path / 'masks')
    sequences = [clip_of_images(name, images, found[name]) for name, images in clips.items()]
    run, _ = scored('annotated', sequences, PREDICTION)
    assert run.frames == 5
    assert run.j_mean == pytest.approx((0.75 + 0 + 0) / 3)
    # The clip in which nothing moves has a mask in both of its frames, without a break.
    assert run.false_alarms == 1
    assert run.false_alarms_per_minute == pytest.approx(60 * 24 / 2)
