"""The real node under a load that it cannot keep up with."""

from __future__ import annotations

import itertools
import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import Float64

# Generous: ten masks a frame on a machine that others use.
LIMIT = 150


@pytest.fixture(scope='module')
def detect(start_detect):
    return start_detect({'window.past': 5, 'window.future': 5, 'refinement.method': 'none'})


def film(detect, condition, what):
    """Publish thirty images a second until a status with the values that ``condition`` takes has come."""
    seen, due = len(detect.statuses), 0.0

    def there():
        nonlocal due, seen
        if time.monotonic() >= due:
            due = time.monotonic() + 0.033
            detect.send()
        new, seen = detect.statuses[seen:], len(detect.statuses)
        return any(condition({pair.key: pair.value for pair in one.values}) for one in new)

    detect.wait(there, what, limit=LIMIT)


def test_without_a_target_rate_the_window_stays(detect):
    detect.watch_masks()
    film(detect, lambda values: int(values['frames published']) >= 3, 'three masks')
    assert detect.values['window delay frames'] == '5'
    assert not [key for key in detect.values if key.startswith(('load ', 'target', 'camera rate', 'utilisation'))]
    # Ten masks take hundreds of milliseconds, an image comes every 33: most get none.
    film(
        detect, lambda _: '% of the images get a mask' in detect.statuses[-1].message, 'the share of images with a mask'
    )
    assert detect.statuses[-1].level == DiagnosticStatus.WARN


def test_a_target_that_cannot_be_kept_makes_the_window_smaller(detect):
    delays = detect.subscribe(Float64, '/detect/debug/window_delay_ms')
    detect.afresh(quiet=1.5)
    assert detect.set(load__target_rate=1000.0)[0].successful
    # Ten masks of 64x128 take a CPU core hundreds of milliseconds; an image comes every 33.
    film(detect, lambda values: int(values['window delay frames']) <= 1, 'a smaller window')
    values = detect.values
    assert values['load setting'].startswith('window -1..+')
    assert 'window needed' in values['load reason']
    assert float(values['target rate hz']) == 1000
    assert float(values['camera rate hz']) > 1
    assert float(values['utilisation %']) > 0
    detect.wait_line(r'\[INFO\].*load: window -\d\.\.\+\d, stride 1; the previous window needed \d+% of the time at')
    # The newest images' masks wait for one frame at most.
    count = len(delays)
    film(detect, lambda _: len(delays) > count + 3, 'results of the new setting')
    stamps = detect.check_masks()
    assert all(earlier < later for earlier, later in itertools.pairwise(stamps))
    assert min(delay.data for delay in delays) < 5 * 33 <= max(delay.data for delay in delays) + 0.5


def test_without_the_target_the_whole_window_is_back(detect):
    assert detect.set(load__target_rate=0.0)[0].successful
    film(detect, lambda values: values['window delay frames'] == '5', 'the configured window')
    assert 'load setting' not in detect.values
    count = len(detect.masks)
    film(detect, lambda _: len(detect.masks) > count + 2, 'masks')
    stamps = detect.check_masks()
    assert all(earlier < later for earlier, later in itertools.pairwise(stamps))


def test_a_wrong_target_is_refused(detect):
    (refused,) = detect.set(load__target_rate=-1.0)
    assert not refused.successful
    assert detect.end() < 20
    assert detect.process.returncode == 0
    assert not [line for line in detect.lines if 'Traceback' in line or 'report this' in line]
