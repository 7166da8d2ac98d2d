"""Images that are wrong, on the real node: said, counted, never answered by a mask, and the node goes on."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from detect_bench import HEIGHT, LOSSLESS, WIDTH, header, scene, stamp_of
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from moving_object_detector.media.codecs import encode_jpeg


@pytest.fixture(scope='module')
def detect(start_detect):
    detect = start_detect({**LOSSLESS, 'input.timeout': 3.0})
    detect.watch_masks()
    return detect


@pytest.fixture(scope='module')
def compressed(start_detect):
    overrides = {name.replace('/camera/image_raw', '/jpeg/compressed'): value for name, value in LOSSLESS.items()}
    detect = start_detect(
        {**overrides, 'transport': 'compressed', 'input.timeout': 3.0},
        ['-r', 'image:=/jpeg', '-r', '__node:=detect_jpeg'],
        node='/detect_jpeg',
        topic='/jpeg/compressed',
    )
    detect.masks = detect.subscribe(Image, '/detect_jpeg/mask')
    detect.wait(lambda: detect.masks, 'mask', meanwhile=lambda: detect.send(encoding='jpeg'))
    detect.afresh(quiet=1.5)
    return detect


def image(**fields):
    """Return a good rgb8 message with some fields replaced."""
    values = {'height': HEIGHT, 'width': WIDTH, 'encoding': 'rgb8', 'step': 3 * WIDTH, 'data': None, **fields}
    data = values.pop('data')
    message = Image(header=header(5), **values)
    message.data = bytes(HEIGHT * WIDTH * 3) if data is None else data
    return message


# Neighbours are complaints of different kinds, since each kind is said once in five seconds.
BAD_IMAGES = {
    'unknown encoding': (
        image(encoding='quux7'), r"encoding 'quux7' is not supported; publish one of rgb8, .*bgr8.*mono16.*yuv422"
    ),
    'step too small': (image(step=100), r'step is 100, but a row of 128 pixels in rgb8 takes 384 bytes; .* to 384'),
    'truncated': (image(data=bytes(1000)), r'data has 1000 bytes, but 128x96 rgb8 with step 384 takes 36864; .*short'),
    'size zero': (image(height=0, width=0, step=0, data=b''), r'image of size zero \(0x0, rgb8\); check the camera'),
    '1x1': (image(height=1, width=1, step=3, data=bytes(3)), r'size 1x1 is too small; both sides must be at least 16'),
    'odd width of yuv': (
        image(width=127, encoding='yuv422', step=254), r'yuv422 needs an even width, but the image is 127x96; publish'
    ),
    'no encoding': (image(encoding=''), r"encoding '' is not supported; publish one of"),
    'wrong encoding': (image(encoding='rgba8'), r'step is 384, but a row of 128 pixels in rgba8 takes 512'),
    'no data': (image(data=b''), r'data has 0 bytes'),
    'height zero': (image(height=0, data=b''), r'image of size zero \(128x0'),
    '8000x6000 truncated': (
        image(height=6000, width=8000, step=24000, data=bytes(500)),
        r'size 8000x6000 is too large; the longest side allowed is 4096: scale .* input\.max_side',
    ),
    'step zero': (image(step=0), r'step is 0, but a row'),
    'largest numbers': (image(height=2**32 - 1, width=2**32 - 1, step=2**32 - 1), r'size 4294967295x4294967295 is too'),
}  # fmt: skip


def test_what_does_not_deserialise_is_counted_and_said(detect):
    """It reaches no callback: the middleware takes it and gives nothing."""
    detect.afresh()
    detect.show(2)
    before, start = detect.counts(), len(detect.lines)
    whole = bytes(serialize_message(detect.message(stamp=7)))
    for wrong in (whole[:-5], whole[:40], whole[:4], b'\x07\x07' + whole[2:]):
        detect.publisher().publish(wrong)
    detect.wait_line('image ignored: message of .*deserialise.*definitions', start)
    detect.wait_counts(received=before['received'] + 4, invalid=before['invalid'] + 4, failed=before['failed'])
    assert 'deserialise' in detect.status.message
    assert detect.status.level == DiagnosticStatus.WARN
    detect.wait_status(lambda message, _: message.startswith('detecting'), 'detecting', meanwhile=detect.send)
    detect.check_masks()
    detect.afresh(quiet=1.5)


@pytest.mark.parametrize('case', BAD_IMAGES)
def test_it_is_ignored_and_said(detect, case):
    bad, pattern = BAD_IMAGES[case]
    detect.afresh()
    lines = len(detect.lines)
    detect.show(3)
    detect.bad(bad)
    detect.wait_line(rf'\[WARN\].*/camera/image_raw: image ignored: {pattern}', lines, lambda: detect.bad(bad))
    detect.show(3)
    detect.wait(lambda: len(detect.masks) >= 5, 'five masks')
    # The stream was not interrupted: all but the last have both neighbours.
    assert detect.check_masks()[:5] == list(detect.sent)[:5]


def test_it_is_counted_and_stands_in_the_diagnostics(detect):
    detect.afresh()
    before = detect.counts()
    detect.show(3)
    for bad, _ in BAD_IMAGES.values():
        detect.bad(bad)
    detect.wait_counts(
        invalid=before['invalid'] + len(BAD_IMAGES),
        processed=before['processed'] + 3,
        failed=0,
        skipped=before['skipped'],
    )
    assert detect.status.level == DiagnosticStatus.WARN
    assert detect.status.message.startswith('/camera/image_raw: image ignored: size 4294967295x4294967295')
    detect.show(1)
    detect.wait_status(lambda message, _: message.startswith('detecting'), 'recovery', detect.send)


def test_8000x6000_whole(detect):
    """144 MB that would be a proper image: the node says so, and goes on."""
    detect.afresh()
    detect.show(2)
    before = detect.counts()
    detect.bad(image(height=6000, width=8000, step=24000, data=bytes(144_000_000)))
    detect.wait_counts(invalid=before['invalid'] + 1)
    detect.show(2)
    detect.wait(lambda: len(detect.masks) >= 3, 'three masks')
    detect.check_masks()


def test_complaints_are_throttled(detect):
    bad, _ = BAD_IMAGES['truncated']
    detect.afresh()
    before, lines = detect.counts(), len(detect.lines)
    for size in range(200):
        bad.data = bytes(size)  # so that no two messages have the same text
        detect.bad(bad)
    detect.wait_counts(invalid=before['invalid'] + 200)
    said = [line for line in detect.lines[lines:] if 'image ignored: data has' in line]
    assert len(said) <= 2
    detect.wait_line('image ignored: data has', len(detect.lines), lambda: detect.bad(bad))


def test_padded_rows_are_no_fault(detect):
    detect.afresh()
    detect.show(4)
    detect.wait(lambda: len(detect.masks) == 3, 'masks')
    plain = [bytes(mask.data) for mask in detect.masks]
    detect.afresh()
    pad = np.random.default_rng(2).integers(0, 256, (HEIGHT, 37), np.uint8)
    for _ in range(4):
        message = detect.message()
        rows = np.frombuffer(message.data, np.uint8).reshape(HEIGHT, -1)
        message.step += 37
        message.data = np.hstack([rows, pad]).tobytes()
        done = len(detect.timings)
        detect.publisher().publish(message)
        detect.wait(lambda done=done: len(detect.timings) > done, 'computed frame')
    detect.wait(lambda: len(detect.masks) == 3, 'masks')
    detect.check_masks()
    assert [bytes(mask.data) for mask in detect.masks] == plain
    assert any(any(mask) for mask in plain)


@pytest.mark.parametrize('size', [(16, 16), (17, 4096), (4096, 16), (97, 131)])
def test_sizes_that_are_only_unusual_are_no_fault(detect, size):
    detect.afresh()
    detect.show(images=[scene(index, size) for index in range(3)])
    detect.wait(lambda: len(detect.masks) >= 2, 'masks')
    detect.check_masks()


def test_the_size_changes(detect):
    detect.afresh()
    lines = len(detect.lines)
    detect.show(3)
    detect.show(images=[scene(index, (64, 80)) for index in range(3)])
    detect.show(3)
    detect.wait(lambda: len(detect.masks) == 9, 'a mask for each image')
    detect.check_masks()
    detect.wait_line(r'/camera/image_raw: detection restarts: the image has another size', lines)


def test_the_encoding_changes(detect):
    detect.afresh()
    lines = len(detect.lines)
    for encoding in ('rgb8', 'bgr8'):
        detect.show(3, encoding=encoding)
    detect.show(images=[scene(index)[..., 1].copy() for index in range(3)], encoding='mono8')
    detect.wait(lambda: len(detect.masks) == 9, 'a mask for each image')
    detect.check_masks()
    # Not across the change: nothing is between frames 2 and 3, so these have one neighbour, and no wrong flow.
    assert all(0 < np.count_nonzero(mask.data) < 0.3 * HEIGHT * WIDTH for mask in detect.masks)
    detect.wait_line(r'detection restarts: the encoding changed from rgb8 to bgr8; ', lines)


def test_stamps_repeat(detect):
    detect.afresh()
    before, lines = detect.counts(), len(detect.lines)
    detect.show(2)
    for _ in range(3):
        detect.send(stamp=detect.stamp)
    detect.show(2)
    detect.wait(lambda: len(detect.masks) >= 3, 'masks')
    detect.check_masks()
    detect.wait_counts(repeated=before['repeated'] + 3)
    detect.wait_line(
        r'/camera/image_raw: image ignored: it has the stamp of the frame before it',
        lines,
    )


def test_stamps_go_back(detect):
    detect.afresh()
    lines = len(detect.lines)
    first = detect.stamp
    detect.show(3)
    detect.stamp = first - 10**9
    detect.show(3)
    detect.wait(lambda: len(detect.masks) == 6, 'a mask for each image')
    detect.check_masks()
    detect.wait_line(
        r'/camera/image_raw: detection restarts: the image is older than the frame before it; does a bag loop', lines
    )
    detect.stamp = first + 10**9


def test_stamps_jump_an_hour(detect):
    detect.afresh()
    lines = len(detect.lines)
    detect.show(3)
    detect.stamp += 3600 * 10**9
    detect.show(3)
    detect.wait(lambda: len(detect.masks) == 6, 'a mask for each image')
    assert detect.check_masks() == list(detect.sent)
    detect.wait_line(r'detection restarts: the image comes after a gap; .*continuity\.max_gap', lines)


def test_a_camera_that_is_slower_than_the_longest_gap(detect):
    """Each image starts anew, so no mask can ever come: that is said in the diagnostics too."""
    detect.afresh()

    def send():
        detect.stamp += 2 * 10**9
        detect.send()

    detect.wait_status(lambda message, _: 'the image comes after a gap' in message, 'it', send)
    assert detect.status.level == DiagnosticStatus.WARN
    assert not detect.masks


@pytest.mark.parametrize('seconds', [-5, -(2**31)])
def test_stamps_before_1970(detect, seconds):
    detect.afresh()
    detect.stamp = seconds * 10**9
    detect.show(4)
    detect.wait(lambda: len(detect.masks) == 4, 'a mask for each image')
    detect.check_masks()
    detect.stamp = 2 * 10**12


def test_stamps_are_zero(detect):
    detect.afresh()
    lines = len(detect.lines)
    for _ in range(4):
        done = len(detect.timings)
        detect.send(stamp=0)
        detect.wait(lambda done=done: len(detect.timings) > done, 'computed frame')
    detect.wait(lambda: len(detect.masks) == 4, 'a mask for each image')
    assert {stamp_of(mask) for mask in detect.masks} == {0}  # the header stays as it came
    detect.wait_line(r'/camera/image_raw: images have no stamp', lines)


def test_a_burst_of_500_images(detect):
    detect.afresh()
    before = detect.counts()
    messages = [detect.message() for _ in range(500)]
    publisher = detect.publisher()
    for message in messages:
        publisher.publish(message)

    def all_counted(_, values):
        names = 'processed', 'skipped', 'dropped'
        return sum(int(values[f'frames {name}']) - before[name] for name in names) == 500

    detect.wait_status(all_counted, 'all 500 counted')
    after = detect.counts()
    assert after['received'] == before['received'] + 500
    assert after['dropped'] > before['dropped']
    assert 0 < after['processed'] - before['processed'] < 250
    detect.wait_line(r'/camera/image_raw: images come faster than the detector can take them', 0)
    detect.check_masks()
    assert detect.masks
    # What comes after the burst does not wait behind it.
    detect.afresh(quiet=1.5)
    detect.show(3)
    detect.wait(lambda: len(detect.masks) == 2, 'masks')


def test_a_publisher_dies_and_returns(detect):
    detect.afresh()
    lines = len(detect.lines)
    detect.show(3)
    detect.withdraw()
    detect.wait(lambda: len(detect.masks) == 3, 'a mask for each image')
    detect.wait_line(r'no image for \d+ s: nobody publishes /camera/image_raw; ', lines)
    detect.publisher()
    detect.show(3)
    detect.wait_line(r'images are arriving again on /camera/image_raw', lines)
    detect.wait(lambda: len(detect.masks) >= 5, 'masks')
    detect.check_masks()


def test_two_publishers(detect):
    detect.afresh()
    lines = len(detect.lines)
    second = detect.node.create_publisher(Image, '/camera/image_raw', 10)

    def both():
        message = detect.message(scene(detect.index, (64, 80)))
        second.publish(message)
        detect.send()

    detect.wait_status(lambda message, _: message.startswith('2 publishers on /camera/'), 'two publishers', both)
    detect.wait_line(r'2 publishers on /camera/image_raw: ', lines, both)
    detect.node.destroy_publisher(second)
    detect.check_masks()
    detect.wait_status(lambda message, _: message.startswith('detecting'), 'recovery', detect.send)
    detect.afresh(quiet=1.5)
    detect.show(3)
    detect.wait(lambda: len(detect.masks) == 2, 'masks')


def test_nothing_went_unexpectedly_wrong(detect, compressed):
    for one in (detect, compressed):
        assert one.process.poll() is None
        assert not [line for line in one.lines if 'Traceback' in line or 'report this' in line]


def jpeg(image_=None):
    return bytes(encode_jpeg(scene(0) if image_ is None else image_))


# The bytes are made by a call, so that collecting the tests does not encode 48 million pixels.
BAD_FILES = {
    'no image': (lambda: b'this is no image at all', r"compressed image \(format 'jpeg', 23 bytes\) does not decode"),
    '1x1': (lambda: jpeg(np.zeros((1, 1, 3), np.uint8)), r'size 1x1 is too small'),
    'truncated': (lambda: jpeg()[:900], r"compressed image \(format 'jpeg', 900 bytes\) "),
    '8000x6000': (lambda: jpeg(np.zeros((6000, 8000, 3), np.uint8)), r'size 8000x6000 is too large'),
    'empty': (lambda: b'', r"compressed image \(format 'jpeg', 0 bytes\) "),
}  # fmt: skip


@pytest.mark.parametrize('case', BAD_FILES)
def test_compressed_it_is_ignored_and_said(compressed, case):
    make, pattern = BAD_FILES[case]
    bad = CompressedImage(header=header(5), format='jpeg')
    bad.data = make()
    compressed.afresh()
    lines = len(compressed.lines)
    compressed.show(3, encoding='jpeg')
    compressed.bad(bad)
    compressed.wait_line(rf'/jpeg/compressed: image ignored: {pattern}', lines, lambda: compressed.bad(bad))
    compressed.show(3, encoding='jpeg')
    compressed.wait(lambda: len(compressed.masks) >= 5, 'five masks')
    assert compressed.check_masks()[:5] == list(compressed.sent)[:5]


def test_compressed_masks_are_those_of_the_picture(compressed):
    compressed.afresh()
    compressed.show(4, encoding='jpeg')
    compressed.wait(lambda: len(compressed.masks) == 3, 'masks')
    compressed.check_masks()
    assert all(0 < np.count_nonzero(mask.data) < 0.3 * HEIGHT * WIDTH for mask in compressed.masks)
    assert compressed.values['image topic'] == '/jpeg/compressed'
