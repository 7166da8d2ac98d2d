"""Images that nobody should send: refused at once and counted, and what follows is as if they had not come."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip('hypothesis', reason='hypothesis comes with requirements/test.txt')
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moving_object_detector.common.errors import ImageError
from moving_object_detector.media.codecs import decode_pixels
from moving_object_detector.media.messages import SUPPORTED_ENCODINGS, decode_message

from hostile import PICTURE, encoded, files, raw  # isort: skip (beside this file)

pytestmark = pytest.mark.slow
QUIET = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
WHOLE = {
    suffix: encoded(suffix, *options)
    for suffix, options in {
        '.jpg': (), '.png': (), '.bmp': (), '.ppm': (), '.tiff': (), '.webp': (cv2.IMWRITE_WEBP_QUALITY, 80),
    }.items()
}  # fmt: skip


def decoded(data):
    """The pixels, or None where they are refused; nothing else may happen."""
    try:
        image = decode_pixels(data)
    except ImageError:
        return None
    assert image.ndim == 3
    assert min(image.shape[:2]) >= 16
    assert max(image.shape[:2]) <= 4096
    return image


def many(examples, effort):
    return settings(max_examples=int(examples * effort), deadline=None, database=None, suppress_health_check=QUIET)


@pytest.mark.parametrize('suffix', WHOLE)
def test_any_change_of_a_file_is_refused_or_gives_an_image(suffix, effort):
    whole = WHOLE[suffix]

    @many(150, effort)
    @given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3000), st.binary(max_size=64)), min_size=1, max_size=3))
    def attack(changes):
        data = whole
        for place, length, content in changes:
            start = int(place * len(data))
            data = data[:start] + content + data[start + length :]
        decoded(data)

    attack()


def test_a_jpeg_that_lost_a_packet_is_refused(effort):
    """1,400 bytes are what a network loses at once."""
    detailed = cv2.resize(np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8), (640, 480))
    for options in ((), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 8)):
        whole = encoded('.jpg', *options, image=detailed)
        assert decoded(whole) is not None
        for place in np.random.default_rng(2).integers(700, len(whole) - 1500, int(15 * effort)):
            assert decoded(whole[:place] + whole[place + 1400 :]) is None


@pytest.mark.parametrize(('data', 'stated', 'refused'), [c[1:] for c in files()], ids=[c[0] for c in files()])
def test_files_from_a_topic(data, stated, refused):
    message = SimpleNamespace(format=stated, data=data)
    if refused is False:
        assert decode_message(message).shape == PICTURE.shape
        return
    try:
        decode_message(message)
    except ImageError as error:
        assert len(str(error)) < 500  # noqa: PT017
        assert str(error).isprintable()  # noqa: PT017
        assert not str(error).startswith('undecodable')  # noqa: PT017 - foreseen
        return
    assert refused is None


@pytest.mark.parametrize('fields', [fields for _, fields in raw()], ids=[name for name, _ in raw()])
def test_raw_images(fields):
    with pytest.raises(ImageError) as caught:
        decode_message(SimpleNamespace(**fields))
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


def test_any_raw_image_is_refused_or_has_the_size_that_it_says(effort):
    numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1))

    @many(1500, effort)
    @given(st.sampled_from([*SUPPORTED_ENCODINGS, '32FC1', 'x']), numbers, numbers, numbers, st.booleans(), numbers)
    def attack(encoding, height, width, step, big, length):
        message = SimpleNamespace(
            encoding=encoding, height=height, width=width, step=step, is_bigendian=big, data=bytes(length % 400_000)
        )
        try:
            image = decode_message(message)
        except ImageError:
            return
        assert image.shape == (height, width, 3)
        assert image.flags.owndata or image.base is not message.data

    attack()


def peak(process):
    """Most memory that the process has had, KiB."""
    status = Path(f'/proc/{process.pid}/status').read_text(encoding='ascii')
    return int(status.split('VmHWM:')[1].split()[0])


def masks_of_a_good_clip(detect, encoding):
    detect.afresh(quiet=1.0)
    detect.show(5, encoding=encoding)
    detect.wait(lambda: len(detect.masks) == 4, 'masks')
    detect.check_masks()
    return [bytes(mask.data) for mask in detect.masks]


@pytest.mark.parametrize('compressed', [False, True])
def test_the_node_goes_on_as_if_they_had_not_come(start_detect, compressed):
    pytest.importorskip('sensor_msgs', reason="ROS 2's message packages are not installed here")
    from detect_bench import LOSSLESS, header
    from sensor_msgs.msg import CompressedImage, Image

    suffix, encoding = ('/compressed', 'jpeg') if compressed else ('', 'rgb8')
    topic = f'/hostile{suffix}'
    overrides = {name.replace('/camera/image_raw', topic): value for name, value in LOSSLESS.items()}
    name = f'hostile_{encoding}'
    detect = start_detect(
        {**overrides, 'transport': 'compressed' if compressed else 'raw'},
        ['-r', 'image:=/hostile', '-r', f'__node:={name}'],
        node=f'/{name}',
        topic=topic,
    )
    detect.masks = detect.subscribe(Image, f'/{name}/mask')
    detect.wait(lambda: detect.masks, 'mask', meanwhile=lambda: detect.send(encoding=encoding))
    fresh = masks_of_a_good_clip(detect, encoding)
    assert any(any(mask) for mask in fresh)
    before, memory = detect.counts(), peak(detect.process)
    refused = 0
    if compressed:
        for _, data, stated, must in files():
            # The format of a megabyte and the like; those that may pass have a clip of their own, or none.
            if must:
                message = CompressedImage(header=header(7), format=stated)
                message.data = data
                detect.bad(message)
                refused += 1
    else:
        for _, fields in raw():
            message = Image(header=header(7), **{**fields, 'data': b''})
            message.data = fields['data']
            detect.bad(message)
            refused += 1
    detect.wait_counts(invalid=before['invalid'] + refused, failed=0, dropped=before['dropped'])
    assert peak(detect.process) - memory < 100_000
    assert masks_of_a_good_clip(detect, encoding) == fresh
    said = [line for line in detect.lines if 'image ignored' in line]
    assert said
    assert max(map(len, detect.lines)) < 2000
    assert not [line for line in detect.lines if 'Traceback' in line or 'report this' in line or '\x1b[31m' in line]
    assert not [line for line in detect.lines if 'Corrupt JPEG' in line]
