"""The computing thread outlives what goes wrong in it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from std_msgs.msg import Header

from moving_object_detector.common.errors import NotFiniteError
from moving_object_detector.common.options import with_values
from moving_object_detector.detection.config import WindowConfig
from moving_object_detector.detection.detector import StepOutcome
from moving_object_detector.nodes.messages import Statistics, image_message
from moving_object_detector.nodes.parameters import NodeConfig
from moving_object_detector.nodes.pipeline import Pipeline
from moving_object_detector.nodes.runtime import bridged


class Detector:
    """Stands for a detector that fails on some frames, which the real one has no way to be made to do."""

    def __init__(self, fails=(), gate=None, seconds=0.0, pairs=0):
        self.fails = set(fails)
        self.pairs = pairs
        self.gate = gate
        self.seconds = seconds
        self.config = None
        self.seen, self.images, self.resets, self.flushes = [], [], 0, 0

    def step(self, image, stamp, *, infer, tag):
        if self.gate is not None:
            self.gate.wait(10)
        time.sleep(self.seconds)
        self.seen.append((stamp, infer))
        self.images.append(image)
        if stamp in self.fails:
            raise RuntimeError(f'CUDA error at {stamp}')
        return StepOutcome(
            [SimpleNamespace(estimate='refined', tag=tag, stamp=stamp)],
            pairs=self.pairs,
            masks=self.pairs,
        )

    def flush(self):
        self.flushes += 1
        return StepOutcome([])

    def reset(self):
        self.resets += 1


class Outputs:
    def __init__(self):
        self.published, self.broken, self.failing = [], [], []
        self.gate, self.seconds = threading.Event(), 0.0
        self.gate.set()

    def wanted(self):
        return True

    def publish(self, result, header):
        if header.stamp.nanosec in self.broken:
            raise NotFiniteError('the masks are not finite')
        self.gate.wait(10)
        time.sleep(self.seconds)
        if header.stamp.nanosec in self.failing:
            raise RuntimeError('no room')
        self.published.append(header.stamp.nanosec)
        return True

    def publish_times(self, **seconds):
        pass


@pytest.fixture
def run():
    """Make a pipeline around a detector; it is closed at the end."""
    pipelines, said = [], []

    class Lines:
        """A ROS logger."""

        def info(self, text):
            said.append(('info', text))

        def warning(self, text):
            said.append(('warning', text))

        def error(self, text):
            said.append(('error', text))

    def begin(detector, **parameters):
        outputs, statistics = Outputs(), Statistics()
        pipeline = Pipeline(detector, outputs, statistics, with_values(NodeConfig(), parameters), lambda: 7)
        pipeline.topic = '/image'
        pipelines.append(pipeline)
        return pipeline, outputs, statistics, said

    with bridged(Lines()):
        yield begin
        for pipeline in pipelines:
            pipeline.close()


def message(stamp, **fields):
    header = Header()
    header.stamp.nanosec = stamp
    made = image_message(np.zeros((20, 30, 3), np.uint8), 'rgb8', header)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def wait(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_an_unexpected_error_is_reported_and_the_next_image_is_computed(run):
    detector = Detector(fails=[2, 3])
    pipeline, outputs, statistics, said = run(detector)
    for stamp in (1, 2, 3, 4):
        pipeline.receive(message(stamp))
        wait(lambda stamp=stamp: len(detector.seen) == stamp)
        if stamp == 3:
            wait(lambda: pipeline.trouble == 'detection failed: RuntimeError: CUDA error at 3')
    wait(lambda: outputs.published == [1, 4])
    wait(lambda: not pipeline.trouble)
    assert detector.resets == 2
    assert statistics.report(0)['frames failed'] == '2'
    # A warning after an error: rclpy does not log with two severities from one line of code.
    pipeline.receive(message(5, encoding='quux'))
    wait(lambda: len(said) == 2)
    assert [severity for severity, _ in said] == ['error', 'warning']
    assert 'RuntimeError: CUDA error at 2' in said[0][1]
    assert said[0][1].startswith('/image: detection failed and restarts; please report this\nTraceback')
    assert "image ignored: encoding 'quux'" in said[1][1]


def test_a_command_is_carried_out_though_the_images_before_it_fail(run):
    gate = threading.Event()
    detector = Detector(fails=[1], gate=gate)
    pipeline, _, _, _ = run(detector)
    pipeline.receive(message(1))
    pipeline.configure(with_values(NodeConfig(), {'mask.threshold': 0.7}))
    gate.set()
    wait(lambda: detector.config is not None)
    assert detector.config.mask.threshold == 0.7


def backlog(run, stamps, steps, **parameters):
    """Send an image and, while it is computed, those of ``stamps``; wait for so many steps of the detector."""
    gate = threading.Event()
    detector = Detector(gate=gate)
    pipeline, _, statistics, said = run(detector, **parameters)
    pipeline.receive(message(1))
    wait(lambda: int(statistics.report(0)['frames received']) == 1)
    time.sleep(0.1)  # until the thread holds the first
    for stamp in stamps:
        pipeline.receive(message(stamp))
    gate.set()
    wait(lambda: len(detector.seen) == steps)
    return detector, statistics, said


def test_only_the_newest_of_those_that_wait_is_computed(run):
    detector, statistics, said = backlog(run, (2, 3, 4, 5), 4, **{'input.queue': 3})
    # The second was dropped, since three may wait.
    assert detector.seen == [(1, True), (3, False), (4, False), (5, True)]
    wait(lambda: statistics.report(0)['frames processed'] == '2')
    report = statistics.report(0)
    assert (report['frames dropped'], report['frames skipped'], report['frames received']) == ('1', '2', '5')
    assert [text for _, text in said if 'the oldest are dropped' in text]


def test_images_that_come_twice_are_computed_once(run):
    """As by a relay beside the camera; the second of the newest must not take the first one's mask."""
    detector, _, _ = backlog(run, (2, 2, 3, 3), 5)
    assert [infer for stamp, infer in detector.seen if stamp == 2] == [False, False]
    assert (3, True) in detector.seen


def test_closing_does_not_wait_for_what_waits(run):
    gate = threading.Event()
    detector = Detector(gate=gate)
    pipeline, _, _, _ = run(detector)
    pipeline.receive(message(1))
    time.sleep(0.1)
    for stamp in range(2, 20):
        pipeline.receive(message(stamp))
    threading.Timer(0.2, gate.set).start()
    pipeline.close()
    assert len(detector.seen) <= 1
    pipeline.receive(message(30))  # from a callback that was under way
    assert len(detector.seen) <= 1


def test_an_image_without_a_stamp_has_that_of_its_arrival(run):
    detector = Detector()
    pipeline, outputs, _, said = run(detector)
    pipeline.receive(message(0))
    wait(lambda: outputs.published == [0])
    assert detector.seen == [(7, True)]
    assert said == [
        ('warning', '/image: images have no stamp, so their time of arrival is used; set it in the camera driver'),
    ]


def deep(stamp, levels, encoding='mono16'):
    """An image of 16 bits whose columns have these levels."""
    rows = np.tile(np.array(levels, '<u2'), (20, 30 // len(levels)))
    return message(stamp, encoding=encoding, step=60, data=rows.tobytes())


def test_sixteen_bits_have_one_scale_until_the_stream_starts_anew(run):
    detector = Detector()
    pipeline, *_ = run(detector)
    pipeline.receive(deep(1, (29000, 29800, 31000)))
    pipeline.receive(deep(2, (29800, 29800, 29800)))
    pipeline.receive(message(3, encoding='nonsense'))
    pipeline.receive(deep(4, (29000, 29800, 31000)))
    wait(lambda: len(detector.seen) == 3)
    first, second, third = (image[0, :3, 0].astype(int).tolist() for image in detector.images)
    # The range and an eighth of it on either side: 28750 to 31250.
    assert first == third == [26, 107, 230]
    assert second == [107] * 3
    pipeline.reset()
    pipeline.receive(deep(5, (100, 180, 300)))
    wait(lambda: len(detector.seen) == 4)
    assert np.ptp(detector.images[-1][0]) > 180
    # Where the encoding changes, another camera may have come.
    pipeline.receive(deep(6, (50000, 51000, 60000), '16UC1'))
    wait(lambda: len(detector.seen) == 5)
    assert np.ptp(detector.images[-1][0]) > 180


def test_one_clock_for_a_stream(run):
    """Stamps of zero before the first good one are arrivals, and after it of no use; the clocks never mix."""
    detector = Detector()
    pipeline, _, statistics, said = run(detector)
    for count, stamp in enumerate((0, 0, 100, 0, 200), 1):
        pipeline.receive(message(stamp))
        wait(lambda count=count: int(statistics.report(0)['frames received']) == count)
        wait(lambda count=count: len(detector.seen) + int(statistics.report(0)['frames invalid']) == count)
    assert [stamp for stamp, _ in detector.seen] == [7, 7, 100, 200]
    assert detector.flushes == 1  # when the stream came to have stamps
    assert any('it has no stamp' in text for _, text in said)
    # After a reset nothing is known of the stream.
    pipeline.reset()
    pipeline.receive(message(0))
    wait(lambda: len(detector.seen) == 5)


def test_results_that_are_not_finite_are_said_and_not_published(run):
    detector = Detector()
    pipeline, outputs, statistics, said = run(detector)
    outputs.broken = [2]
    for stamp in (1, 2):
        pipeline.receive(message(stamp))
        wait(lambda stamp=stamp: len(detector.seen) == stamp)
    wait(lambda: 'not finite' in pipeline.trouble)
    pipeline.receive(message(3))
    wait(lambda: outputs.published == [1, 3])
    wait(lambda: not pipeline.trouble)
    assert statistics.report(0)['frames failed'] == '1'
    assert detector.resets == 0
    assert [severity for severity, text in said if 'not finite' in text] == ['error']


def test_a_decoder_that_fails_makes_an_invalid_image(run, monkeypatch):
    def fail(*_):
        raise MemoryError('no room\n\x1b[31m')

    detector = Detector()
    pipeline, outputs, statistics, said = run(detector)
    pipeline.receive(message(1))
    wait(lambda: outputs.published == [1])
    with monkeypatch.context() as patch:
        patch.setattr('moving_object_detector.media.messages.decode_image', fail)
        pipeline.receive(message(2))
        wait(lambda: statistics.report(0)['frames invalid'] == '1')
    pipeline.receive(message(3))
    wait(lambda: outputs.published == [1, 3])
    # The stream goes on, the words of the decoder stay on their line, and it is nobody's fault here.
    assert (detector.resets, statistics.report(0)['frames failed']) == (0, '0')
    (text,) = (text for _, text in said)
    assert 'MemoryError' in text
    assert text.isprintable()


# The load.


def test_the_window_follows_target_and_estimate(run):
    detector = Detector()
    pipeline, *_ = run(detector, **{'load.target_rate': 100.0})
    whole = NodeConfig().window
    assert detector.window == whole

    def configure(target, estimate='refined'):
        pipeline.configure(with_values(NodeConfig(), {'load.target_rate': target, 'estimate': estimate}))
        resets = detector.resets
        pipeline.reset()  # comes after it
        wait(lambda: detector.resets > resets)

    configure(100.0, 'zero_lag')
    assert detector.window.future == 0
    configure(100.0)
    assert detector.window == whole
    pipeline.load.window = detector.window = small = WindowConfig(1, 1, 1)
    configure(50.0)
    # What was measured goes on to count.
    assert (pipeline.load.window, pipeline.load.target, detector.window) == (small, 50.0, small)
    configure(0.0)
    assert (detector.window, pipeline.load.report()) == (whole, {})


def test_a_load_that_is_too_much_makes_the_window_smaller(run):
    detector = Detector(seconds=0.02, pairs=10)
    pipeline, _, _, said = run(detector, **{'load.target_rate': 100.0, 'input.queue': 1})
    deadline, stamp = time.monotonic() + 60, 0
    while detector.window == NodeConfig().window and time.monotonic() < deadline:
        stamp += 1
        pipeline.receive(message(stamp))
        time.sleep(0.005)
    wait(lambda: [text for severity, text in said if severity == 'info' and text.startswith('load: window')])


# Results are computed beside the next step.


def test_a_slow_result_holds_up_one_step_at_most_and_the_order_stays(run):
    detector = Detector()
    pipeline, outputs, _, _ = run(detector)
    outputs.gate.clear()
    for stamp in (1, 2, 3, 4):
        pipeline.receive(message(stamp))
        wait(lambda stamp=stamp: len(detector.seen) == min(stamp, 2))
    # The second was computed beside the first one's result; those after it wait, or memory would grow.
    time.sleep(0.2)
    assert detector.seen == [(1, True), (2, True)]
    assert not outputs.published
    outputs.gate.set()
    wait(lambda: outputs.published == [1, 2, 3, 4])


def test_overlap_raises_the_rate_and_not_the_latency(run):
    """Half of the work is the step, half the result: one after the other they would take twice as long."""
    detector = Detector(seconds=0.2)
    pipeline, outputs, statistics, _ = run(detector)
    outputs.seconds = 0.2
    started = time.monotonic()
    for stamp in range(1, 7):
        pipeline.receive(message(stamp))
        wait(lambda stamp=stamp: len(detector.seen) == stamp)
    wait(lambda: outputs.published == [1, 2, 3, 4, 5, 6])
    assert time.monotonic() - started < 1.4 + 0.5  # 2.4 without
    wait(lambda: statistics.report(0)['frames processed'] == '6')
    assert 400 <= float(statistics.report(0)['latency median ms']) < 400 + 150


@pytest.mark.parametrize('act', ['reset', 'configure', 'flush', 'close'])
def test_what_is_asked_for_comes_after_the_results_before_it(run, act):
    detector = Detector()
    pipeline, outputs, _, _ = run(detector)
    outputs.gate.clear()
    pipeline.receive(message(1))
    wait(lambda: len(detector.seen) == 1)
    # Results of the other estimate are not published from here on.
    argument = (with_values(NodeConfig(), {'estimate': 'zero_lag'}),) if act == 'configure' else ()
    thread = threading.Thread(target=getattr(pipeline, act), args=argument)
    thread.start()
    time.sleep(0.1)
    assert (detector.resets, detector.flushes, detector.config) == (0, 0, None)
    assert thread.is_alive() == (act == 'close')
    outputs.gate.set()
    thread.join()
    wait(lambda: outputs.published == [1])
    done = {'reset': 'resets', 'configure': 'config', 'flush': 'flushes'}.get(act)
    wait(lambda: done is None or getattr(detector, done))


def test_a_result_that_fails_starts_the_detector_anew(run):
    detector = Detector()
    pipeline, outputs, statistics, said = run(detector)
    outputs.failing = [2]
    for stamp in (1, 2, 3):
        pipeline.receive(message(stamp))
        wait(lambda stamp=stamp: len(detector.seen) == stamp)
    wait(lambda: outputs.published == [1, 3])
    wait(lambda: detector.resets == 1)
    assert statistics.report(0)['frames failed'] == '1'
    assert [severity for severity, text in said if 'RuntimeError: no room' in text] == ['error']


def test_a_thread_takes_the_number_of_threads_that_another_has_set():
    """Else the first matrix product of a thread starts threads of its own; in a process of its own, to count them."""
    code = """
import os, threading, time, torch
from moving_object_detector.nodes.pipeline import take_thread_count
def in_thread(body):
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    time.sleep(0.2)  # until it is gone
def product():
    take_thread_count()
    before = len(os.listdir('/proc/self/task'))
    a, b, c = torch.randn(2, 9, 3), torch.randn(2, 3, 32768), torch.randn(9, 32768)
    for _ in range(5):
        (a @ b).baddbmm_(torch.randn(2, 9, 9), c.expand(2, -1, -1))
    print(len(os.listdir('/proc/self/task')) - before)
in_thread(lambda: torch.set_num_threads(1))
in_thread(product)
"""
    environment = {name: value for name, value in os.environ.items() if 'NUM_THREADS' not in name}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) == 0
