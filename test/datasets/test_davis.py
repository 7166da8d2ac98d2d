from __future__ import annotations

import cv2
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.layouts import MaskFiles, read_davis


def write_listing(root, text, split='val'):
    folder = root / 'ImageSets' / '480p'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f'{split}.txt').write_text(text)


def line(sequence, number, space=' '):
    return f'/JPEGImages/480p/{sequence}/{number:05d}.jpg{space}/Annotations/480p/{sequence}/{number:05d}.png'


def test_sequences_frames_and_annotations_in_the_listings_order(tmp_path):
    rows = [line('cat', 0), line('cat', 1), '', line('ant', 0, '  ') + '  ', line('ant', 2, '\t')]
    write_listing(tmp_path, '\n'.join(rows) + '\n')
    folder = tmp_path / 'Annotations' / '480p' / 'cat'
    folder.mkdir(parents=True)
    (folder / '00001.png').write_bytes(b'')
    cat, ant = read_davis(tmp_path, 'val')
    assert cat.name == 'cat'
    assert cat.files == tuple(tmp_path / 'JPEGImages' / '480p' / 'cat' / f'0000{k}.jpg' for k in (0, 1))
    assert cat.annotations == (None, MaskFiles((folder / '00001.png',)))
    assert ant.name == 'ant'
    assert [path.name for path in ant.files] == ['00000.jpg', '00002.jpg']


def test_the_split_decides(tmp_path):
    write_listing(tmp_path, line('cat', 0))
    write_listing(tmp_path, line('dog', 0), split='train')
    assert [sequence.name for sequence in read_davis(tmp_path, 'train')] == ['dog']


def test_listings_of_other_systems(tmp_path):
    """Lines end as on Windows, and the file begins with a byte order mark."""
    folder = tmp_path / 'ImageSets' / '480p'
    folder.mkdir(parents=True)
    (folder / 'val.txt').write_bytes(f'\ufeff{line("cat", 0)}\r\n{line("cat", 1)}\r\n'.encode())
    (cat,) = read_davis(tmp_path, 'val')
    assert cat.files == tuple(tmp_path / 'JPEGImages' / '480p' / 'cat' / f'0000{k}.jpg' for k in (0, 1))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('/JPEGImages/480p/cat/00000.jpg\n', r"val\.txt, line 1: '.*' is not a frame and an annotation"),
        (line('cat', 0) + '\n' + line('cat', 1) + ' more', r'val\.txt, line 2'),
        ('\n\n', r'val\.txt is empty'),
    ],
)
def test_damaged_listings(tmp_path, text, message):
    write_listing(tmp_path, text)
    with pytest.raises(UserError, match=message):
        read_davis(tmp_path, 'val')


def test_a_missing_split(tmp_path):
    with pytest.raises(UserError, match=r'ImageSets/480p/test\.txt'):
        read_davis(tmp_path, 'test')
    write_listing(tmp_path, '')
    with pytest.raises(UserError, match=r'split test .*val$'):
        read_davis(tmp_path, 'test')


def test_the_published_training_set(shared):
    sequences = read_davis(shared / 'data' / 'davis2016', 'train')
    assert len(sequences) == 30
    assert sum(len(sequence.files) for sequence in sequences) == 2079
    assert all(None not in sequence.annotations for sequence in sequences)
    # Sizes of annotation and frame agree, and the object is neither nothing nor everything.
    bear = next(sequence for sequence in sequences if sequence.name == 'bear')
    mask = bear.annotations[0]()
    assert mask.shape == cv2.imread(str(bear.files[0])).shape[:2]
    assert 0.02 < mask.mean() < 0.5
