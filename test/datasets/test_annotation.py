from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.layouts import MaskFiles, RegionFile


@pytest.mark.parametrize('kind', ['grey', 'colour', 'transparent', 'sixteen bit', 'one'])
def test_any_value_but_zero_is_object(tmp_path, kind):
    mask = np.zeros((6, 8), bool)
    mask[2:4, 3:7] = True
    pixels = {
        'grey': mask * np.uint8(255),
        'one': mask * np.uint8(1),
        'sixteen bit': mask * np.uint16(300),
        'colour': np.stack((mask * 0, mask * 0, mask * 128), -1).astype(np.uint8),
        'transparent': np.stack((mask * 0, mask * 9, mask * 0, mask * 0 + 255), -1).astype(np.uint8),
    }[kind]
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    found = MaskFiles((tmp_path / 'a.png',))()
    assert found.dtype == bool
    assert np.array_equal(found, mask)


def test_several_masks_are_united(tmp_path):
    for name, columns in (('a', slice(0, 2)), ('b', slice(1, 3)), ('c', slice(6, 6))):
        mask = np.zeros((4, 8), np.uint8)
        mask[:, columns] = 255
        cv2.imwrite(str(tmp_path / f'{name}.png'), mask)
    found = MaskFiles(tuple(tmp_path / f'{name}.png' for name in 'abc'))()
    assert found[0].tolist() == [True] * 3 + [False] * 5


def test_masks_of_different_sizes(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((4, 8), np.uint8))
    cv2.imwrite(str(tmp_path / 'b.png'), np.zeros((4, 9), np.uint8))
    with pytest.raises(UserError, match=r'b\.png is 9x4, but .*a\.png is not'):
        MaskFiles((tmp_path / 'a.png', tmp_path / 'b.png'))()


def test_annotations_that_cannot_be_read(tmp_path):
    (tmp_path / 'a.png').write_text('no picture')
    (tmp_path / 'b.png').write_text('')
    for name, reason in (('a', 'as an image'), ('b', 'as an image'), ('none', 'No such file')):
        for annotation in (MaskFiles((tmp_path / f'{name}.png',)), RegionFile(tmp_path / f'{name}.png', 0, (1,))):
            with pytest.raises(UserError, match=rf'{name}\.png cannot be read.*{reason}'):
                annotation()


def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png(rows, width, depth, colour, *chunks):
    """A PNG written by hand: rows of packed bytes, and chunks between header and pixels."""
    header = struct.pack('>IIBBBBB', width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b''.join(b'\0' + row for row in rows))
    parts = (chunk(b'IHDR', header), *chunks, chunk(b'IDAT', pixels), chunk(b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


GREY, PALETTE = 0, 3
EXPECTED = [[False, True, True, False], [False, False, True, True]]


@pytest.mark.parametrize(
    'content',
    [
        png([b'\x60', b'\x30'], 4, 1, GREY),
        png([b'\x14', b'\x05'], 4, 2, GREY),  # two bits a pixel: 0 1 1 0 and 0 0 1 1
        png([b'\0\1\2\0', b'\0\0\1\2'], 4, 8, PALETTE, chunk(b'PLTE', bytes([0, 0, 0, 128, 0, 0, 0, 128, 0]))),
        png([b'\0\1\1\0', b'\0\0\1\1'], 4, 8, PALETTE, chunk(b'PLTE', bytes([0, 0, 0, 0, 0, 1]))),
        png([b'\x60', b'\x30'], 4, 1, PALETTE, chunk(b'PLTE', bytes([0, 0, 0, 128, 0, 0]))),
        png(
            [b'\0\1\1\0', b'\0\0\1\1'],
            4,
            8,
            PALETTE,
            chunk(b'tEXt', b'Software\0by hand'),
            chunk(b'PLTE', bytes([0, 0, 0, 128, 0, 0])),
            chunk(b'tRNS', b'\0'),
        ),
        png([b'\0\0\0\1\1\0\0\0', b'\0\0\0\0\0\1\xff\xff'], 4, 16, GREY),
    ],
    ids=['1 bit', '2 bits', 'palette', 'dark palette', '1 bit palette', 'transparent background', '16 bits'],
)
def test_png_of_all_depths(tmp_path, content):
    (tmp_path / 'a.png').write_bytes(content)
    assert MaskFiles((tmp_path / 'a.png',))().tolist() == EXPECTED


def test_a_palette_that_does_not_begin_with_black(tmp_path):
    white_first = chunk(b'PLTE', bytes([255, 255, 255, 0, 0, 0]))
    (tmp_path / 'a.png').write_bytes(png([b'\0\1\1\0', b'\0\0\1\1'], 4, 8, PALETTE, white_first))
    with pytest.raises(UserError, match=r'a\.png: .*palette'):
        MaskFiles((tmp_path / 'a.png',))()


def test_a_jpeg_is_cut_at_half(tmp_path):
    """Its values near the edge are neither 0 nor 255."""
    mask = cv2.circle(np.zeros((48, 64), np.uint8), (30, 20), 13, 255, -1)
    cv2.imwrite(str(tmp_path / 'a.jpg'), mask, [cv2.IMWRITE_JPEG_QUALITY, 75])
    assert len(np.unique(cv2.imread(str(tmp_path / 'a.jpg'), cv2.IMREAD_UNCHANGED))) > 20
    assert np.array_equal(MaskFiles((tmp_path / 'a.jpg',))(), mask > 0)


@pytest.mark.parametrize('kind', ['grey', 'colour', 'palette'])
@pytest.mark.parametrize('part', [0.001, 0.2, 0.7, 0.99])
def test_a_png_that_is_cut_short(tmp_path, kind, part):
    noise = np.random.default_rng(4).integers(0, 256, (60, 80), np.uint8)
    content = {
        'grey': cv2.imencode('.png', noise)[1].tobytes(),
        'colour': cv2.imencode('.png', np.dstack([noise] * 3))[1].tobytes(),
        'palette': png([row.tobytes() for row in noise % 2], 80, 8, PALETTE, chunk(b'PLTE', bytes(6))),
    }[kind]
    (tmp_path / 'a.png').write_bytes(content[: int(len(content) * part)])
    with pytest.raises(UserError, match=r'a\.png'):
        MaskFiles((tmp_path / 'a.png',))()


def test_regions_by_grey_value(tmp_path):
    """A code that the definition does not know, 9, is no object."""
    cv2.imwrite(str(tmp_path / 'a.pgm'), np.array([[255, 0], [127, 255], [9, 0]], np.uint8))
    expected = [[False, True], [True, False], [False, True]]
    assert RegionFile(tmp_path / 'a.pgm', 255, (127, 0))().tolist() == expected
    assert not RegionFile(tmp_path / 'a.pgm', 255, (3,))().any()
    assert RegionFile(tmp_path / 'a.pgm', 3, (0,))().tolist() == [[False, True], [False, False], [False, True]]


def test_regions_by_colour(tmp_path):
    # Written by hand, so that the order of the channels is the format's: red, green, blue.
    pixels = bytes([1, 2, 3, 255, 255, 255, 3, 2, 1, 0, 0, 0])
    (tmp_path / 'a.ppm').write_bytes(b'P6\n2 2\n255\n' + pixels)
    first, white, other = 1 * 65536 + 2 * 256 + 3, 16777215, 3 * 65536 + 2 * 256 + 1
    assert RegionFile(tmp_path / 'a.ppm', first, (white, other, 0))().tolist() == [[False, True], [True, True]]
    assert RegionFile(tmp_path / 'a.ppm', white, (first, other))().tolist() == [[True, False], [True, False]]


def test_regions_with_codes_of_another_file(tmp_path):
    """Grey codes and a label in colour: all of it would be background, or all of it object."""
    (tmp_path / 'a.ppm').write_bytes(b'P6\n2 1\n255\n' + bytes([255, 255, 255, 127, 127, 127]))
    with pytest.raises(UserError, match=r'a\.ppm .*: 255, 127$'):
        RegionFile(tmp_path / 'a.ppm', 255, (127,))()
