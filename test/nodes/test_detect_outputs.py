"""What the real node publishes, and when it does not."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from detect_bench import HEIGHT, LOSSLESS, WIDTH, object_box, scene, stamp_of
from sensor_msgs.msg import Image
from std_msgs.msg import Float64
from std_srvs.srv import SetBool, Trigger

from moving_object_detector.nodes.outputs import detection_format


@pytest.fixture(scope='module')
def detect(start_detect):
    return start_detect({**LOSSLESS, 'input.timeout': 1.0})


def pixels(message, dtype, channels=1):
    """Return the message's pixels by its own step, without the package's code."""
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    values = rows[:, : message.width * channels * np.dtype(dtype).itemsize].copy().view(dtype)
    return values.reshape(message.height, message.width, channels).squeeze()


def ious(message, index):
    x, y, side = object_box(index)
    truth = np.zeros((HEIGHT, WIDTH), bool)
    truth[y : y + side, x : x + side] = True
    mask = pixels(message, np.uint8) > 0
    return (mask & truth).sum() / (mask | truth).sum()


def test_nothing_is_computed_while_nobody_subscribes(detect):
    detect.wait_line('active: waiting for images on /camera/image_raw')
    for _ in range(20):
        detect.send()
    detect.wait_counts(received=20, processed=0, skipped=0, published=0)
    detect.wait_status(lambda message, _: 'nobody subscribes' in message, 'nobody subscribes', detect.send)
    assert detect.counts()['processed'] == 0
    assert not detect.timings
    assert detect.values['engine'] == 'torch float32 on cpu, dis-medium flow, 128x64'


def test_each_result_is_that_of_its_own_image(detect):
    detect.watch_masks()
    topics = {'probability': Image, 'overlay': Image, 'flow': Image}
    got = {name: detect.subscribe(kind, f'/detect/{name}') for name, kind in topics.items()}
    debug = {
        name: detect.subscribe(Float64, f'/detect/debug/{name}')
        for name in ('processing_time_ms', 'pipeline_latency_ms', 'cyclic_time_ms')
    }
    # Until the node knows all of them.
    detect.wait(lambda: all((*got.values(), *debug.values())), 'results on every topic', meanwhile=detect.send)
    detect.afresh(quiet=1.5)
    for messages in (*got.values(), *debug.values()):
        messages.clear()

    detect.show(7)
    detect.wait(lambda: len(detect.masks) == 6 and all(len(m) == 6 for m in got.values()), 'six results on each topic')
    stamps = detect.check_masks()
    assert stamps == list(detect.sent)[:6]  # the seventh waits for its later neighbour
    for index, mask in enumerate(detect.masks):
        assert ious(mask, index) > 0.5
    for name in ('probability', 'overlay', 'flow'):
        assert [stamp_of(message) for message in got[name]] == stamps
        assert {(m.height, m.width, m.header.frame_id, m.is_bigendian) for m in got[name]} == {
            (HEIGHT, WIDTH, 'camera', 0)
        }
    for index, mask in enumerate(detect.masks):
        probability, flow = got['probability'][index], got['flow'][index]
        assert (probability.encoding, flow.encoding, got['overlay'][index].encoding) == ('32FC1', '32FC2', 'bgr8')
        shares = pixels(probability, np.float32)
        assert shares.min() >= 0
        assert shares.max() <= 1
        # The default leaves out what is smaller than 0.05 % of the image: six pixels.
        assert ((shares >= 0.5) != (pixels(mask, np.uint8) > 0)).sum() <= 12
        x, y, side = object_box(index)
        moved = pixels(flow, np.float32, 2)
        assert np.median(moved[y + 8 : y + side - 8, x + 8 : x + side - 8], axis=(0, 1)) == pytest.approx(
            (3, 0), abs=0.7
        )
        assert np.abs(np.median(moved[:20], axis=(0, 1))).max() < 0.3
        overlay = pixels(got['overlay'][index], np.uint8, 3)[..., ::-1]
        outside = pixels(mask, np.uint8) == 0
        outside[y - 12 : y + side + 12] = False  # frame and score
        np.testing.assert_array_equal(overlay[outside], scene(index)[outside])
        assert (overlay != scene(index)).any()
    detect.wait(lambda: all(len(messages) == 7 for messages in debug.values()), 'timings of all seven')
    assert all(message.data > 0 for message in debug['processing_time_ms'])
    for processing, latency in zip(debug['processing_time_ms'], debug['pipeline_latency_ms'], strict=True):
        assert latency.data >= processing.data
    assert debug['cyclic_time_ms'][0].data >= 0
    assert all(message.data > 0 for message in debug['cyclic_time_ms'][1:])


def boxes(message):
    """Return [(left, top, right, bottom, score)] of a Detection2DArray."""
    found = []
    for one in message.detections:
        x, y = one.bbox.center.position.x, one.bbox.center.position.y
        w, h = one.bbox.size_x / 2, one.bbox.size_y / 2
        found.append((x - w, y - h, x + w, y + h, one.results[0].hypothesis.score))
    return found


def test_without_vision_msgs_the_topic_is_not_there_and_the_log_says_why(detect):
    if detection_format() is not None:
        pytest.skip('vision_msgs is installed here')
    detect.wait_line('vision_msgs')
    topics = dict(detect.node.get_topic_names_and_types())
    assert '/detect/overlay' in topics
    assert '/detect/detections' not in topics


def test_detections_box_the_mask(detect):
    if detection_format() is None:
        pytest.skip('vision_msgs is not installed here: it comes with a sourced ROS 2, not as a wheel')
    got = detect.subscribe(detection_format()[0], '/detect/detections')
    detect.wait(lambda: got, 'detections', meanwhile=detect.send)
    detect.afresh(quiet=1.5)
    got.clear()
    detect.show(4)
    detect.wait(lambda: len(got) == 3 and len(detect.masks) == 3, 'three results')
    for mask, message in zip(detect.masks, got, strict=True):
        rows, columns = np.nonzero(pixels(mask, np.uint8))
        found = boxes(message)
        assert found
        edges = np.array([box[:4] for box in found])
        # Whatever the number of regions: together their boxes span the mask.
        assert edges[:, :2].min(0).tolist() == [columns.min(), rows.min()]
        assert edges[:, 2:].max(0).tolist() == [columns.max() + 1, rows.max() + 1]
        assert all(0.5 <= box[4] <= 1 for box in found)
        assert mask.header == message.header


def test_every_image_gets_one_mask_once_the_stream_ends(detect):
    detect.afresh()
    detect.show(5)
    detect.wait(lambda: len(detect.masks) == 5, 'mask of the last image, at the time-out')
    assert sorted(detect.check_masks()) == sorted(detect.sent)
    detect.wait_line(r'no image for \d+ s: /bench advertises /camera/image_raw with a QoS that matches')


def test_an_image_alone_gets_no_mask_and_counts_as_missed(detect):
    detect.afresh()
    before = detect.counts()
    detect.show(1)
    # At the time-out.
    detect.wait_counts(received=before['received'] + 1, processed=before['processed'] + 1, missed=before['missed'] + 1)
    assert not detect.masks


def test_the_zero_lag_estimate_comes_at_once_and_can_be_chosen_at_run_time(detect):
    detect.afresh()
    detect.show(4)
    assert detect.set(estimate='zero_lag')[0].successful
    detect.wait(lambda: len(detect.masks) == 4, 'refined mask of the last image, at the change')
    refined = detect.check_masks()
    assert refined == list(detect.sent)
    detect.show(4)
    detect.wait(lambda: len(detect.masks) == 7, 'mask of the newest image')
    # The first has no earlier neighbour, since the change begins anew.
    assert detect.check_masks()[4:] == list(detect.sent)[5:]
    detect.wait_status(lambda _, values: values['window delay frames'] == '0', 'no delay')
    assert detect.set(estimate='refined')[0].successful
    detect.show(3)
    detect.wait(lambda: len(detect.masks) == 9, 'refined masks')
    detect.check_masks()
    detect.wait_status(lambda _, values: values['window delay frames'] == '1', 'the delay of one frame')


def test_a_scene_in_which_nothing_moves_has_an_empty_mask(detect):
    detect.afresh()
    still = scene(0)
    rng = np.random.default_rng(1)
    noisy = [np.clip(still + rng.normal(0, 1.0, still.shape), 0, 255).astype(np.uint8) for _ in range(5)]
    detect.show(images=noisy)
    detect.wait(lambda: len(detect.masks) == 4, 'four masks')
    detect.check_masks()
    assert not any(np.any(mask.data) for mask in detect.masks)


def test_options_of_run_time_work_on_the_next_mask(detect):
    detect.afresh()
    detect.show(3)
    detect.wait(lambda: len(detect.masks) == 2, 'two masks')
    assert all(np.any(mask.data) for mask in detect.masks)
    (before,) = detect.get('gate.min_motion')
    assert detect.set(gate__min_motion=1000.0)[0].successful
    detect.show(3)
    detect.wait(lambda: len(detect.masks) == 5, 'five masks')
    assert not any(np.any(mask.data) for mask in detect.masks[3:])
    assert detect.set(gate__min_motion=before)[0].successful


def test_reset_forgets_the_frames_that_wait(detect):
    detect.afresh()
    detect.show(3)
    answer = detect.call(Trigger, '/detect/reset')
    assert (answer.success, answer.message) == (True, 'all frames discarded')
    detect.show(3)
    detect.wait(lambda: len(detect.masks) == 4, 'masks')
    stamps = list(detect.sent)
    assert detect.check_masks() == [*stamps[:2], *stamps[3:5]]


def test_enable_turns_detection_off_and_on(detect):
    detect.afresh()
    answer = detect.call(SetBool, '/detect/enable', data=False)
    assert (answer.success, answer.message) == (True, 'detection is off, images are ignored')
    before = detect.counts()
    assert detect.status.message == 'disabled by the service ~/enable'
    for _ in range(5):
        detect.send()
    detect.wait_status(lambda *_: True, 'anything')
    assert detect.counts() == before
    assert not detect.masks
    assert detect.call(SetBool, '/detect/enable', data=True).success
    detect.sent.clear()
    detect.show(3)
    detect.wait(lambda: len(detect.masks) == 2, 'masks')
    detect.check_masks()
    detect.wait_status(lambda message, _: message.startswith('detecting'), 'detecting', detect.send)


def test_diagnostics_count_what_was_done(detect):
    from diagnostic_msgs.msg import DiagnosticStatus

    detect.afresh()
    before = detect.counts()
    detect.show(6)
    # The last one at the time-out.
    detect.wait_counts(**{name: before[name] + 6 for name in ('received', 'processed', 'published')})
    status, values = detect.status, detect.values
    assert status.level in (DiagnosticStatus.OK, DiagnosticStatus.WARN)
    assert (status.name, status.hardware_id) == ('/detect: detection', '/detect')
    assert values['state'] == 'active'
    assert values['image topic'] == '/camera/image_raw'
    assert values['window delay frames'] == '1'
    assert float(values['processing median ms']) > 0
    assert float(values['latency p99 ms']) >= float(values['latency p95 ms']) >= float(values['latency median ms'])
    assert float(values['frame rate hz']) >= 0
    assert {values[f'frames {name}'] for name in ('dropped', 'invalid', 'repeated', 'failed')} == {'0'}


def test_results_stop_when_nobody_listens_any_more(detect):
    detect.afresh()
    for topic in list(detect.subscriptions):
        detect.unsubscribe(topic)
    detect.wait_status(lambda message, _: 'nobody subscribes' in message, 'nobody subscribes', detect.send)
    before = detect.counts()
    for _ in range(5):
        detect.send()
    detect.wait_counts(received=before['received'] + 5, processed=before['processed'], published=before['published'])
    assert detect.end() < 10
    assert detect.process.returncode == 0
    assert not [line for line in detect.lines if 'Traceback' in line or 'report this' in line]
