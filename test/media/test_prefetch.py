from __future__ import annotations

import threading
import time

import pytest

from moving_object_detector.media.frames import prefetch


def test_items_come_in_order():
    with prefetch(iter(range(100)), depth=3) as items:
        assert list(items) == list(range(100))


def test_no_more_than_depth_items_are_made_ahead():
    made = []

    def produce():
        for k in range(50):
            made.append(k)
            yield k

    with prefetch(produce(), depth=4) as items:
        first = next(iter(items))
        deadline = time.monotonic() + 5
        while len(made) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        # One taken, four waiting, one in the producer's hand.
        assert (first, len(made)) == (0, 6)


def test_an_error_comes_after_the_items_before_it():
    def produce():
        yield 1
        raise OSError('disk')

    seen = []
    with prefetch(produce()) as items, pytest.raises(OSError, match='disk'):
        seen.extend(items)
    assert seen == [1]


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    with prefetch(iter(range(10**9)), depth=2) as items:
        assert next(iter(items)) == 0
    assert threading.active_count() == before
