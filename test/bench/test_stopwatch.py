from __future__ import annotations

import time

from moving_object_detector.bench.tasks import Stopwatch


def test_stages_within_stages():
    watch = Stopwatch(synchronise=False)
    for _ in range(2):
        with watch('outer'):
            time.sleep(0.02)
            with watch('inner'):
                time.sleep(0.03)
    times = watch.take()
    assert len(times['outer']) == len(times['inner']) == 2
    assert all(0.03 <= inner < outer - 0.015 for inner, outer in zip(times['inner'], times['outer'], strict=True))
    assert watch.take() == {}
