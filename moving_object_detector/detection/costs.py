"""What the detector's work costs on this machine now, measured while it works."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from math import log2
from statistics import median

from moving_object_detector.detection.setting import Setting

SAMPLES = 9
"""Of each cost the last ones count, by their median: four of them may be outliers."""
SETTLED = 5
"""Batches after which a new setting is judged."""
MOST_OVERHEAD = 50.0


class Arrivals:
    """How many images come in a second; used by several threads."""

    def __init__(self) -> None:
        # The mean, since images that come in bunches have no typical interval; short, to notice a camera that slows.
        self._moments: deque[float] = deque(maxlen=17)
        self._lock = threading.Lock()

    def add(self, moment: float) -> None:
        """Take note of an image that came at ``moment`` seconds of a steady clock."""
        with self._lock:
            self._moments.append(moment)

    def clear(self) -> None:
        """Forget all images."""
        with self._lock:
            self._moments.clear()

    def rate(self) -> float:
        """Return images a second; 0 while that is not known."""
        with self._lock:
            count, span = len(self._moments), self._moments[-1] - self._moments[0] if self._moments else 0.0
        return (count - 1) / span if count > SETTLED and span > 0 else 0.0


class Costs:
    """Predicts the time that a setting takes from the times that the present one takes; all in seconds.

    A frame costs ``frame`` (decoding, resizing, features), a result ``result`` (refinement, messages), a
    batch of n pairs ``unit x (overhead + n)``. The overhead is a property of the machine more than
    of its load, is nought on a CPU and is large on a GPU that a small batch cannot fill. It is learnt
    from changes of the setting, which bring batches of another length.
    """

    def __init__(self) -> None:
        self.overhead = 0.0
        """What a batch costs beside its pairs, in pairs."""
        self._frames: deque[float] = deque(maxlen=SAMPLES)
        self._results: deque[float] = deque(maxlen=SAMPLES)
        self._batches: deque[tuple[int, float]] = deque(maxlen=SAMPLES)
        self._before: list[tuple[int, float]] = []
        self._seen: set[int] = set()

    def frame(self, seconds: float) -> None:
        """Take note of what entering a frame took."""
        self._frames.append(seconds)

    def result(self, seconds: float) -> None:
        """Take note of what refining and publishing a result took."""
        self._results.append(seconds)

    def batch(self, pairs: int, seconds: float) -> None:
        """Take note of what the flows and masks of a batch of pairs took."""
        if pairs not in self._seen:
            # Engines prepare themselves for a batch of new length: the first one says nothing.
            self._seen.add(pairs)
            return
        self._batches.append((pairs, seconds))
        if self._before and len(self._batches) == SETTLED:
            self._learn_overhead()

    def changed(self) -> None:
        """Judge by what comes from now on: the setting is another."""
        self._before = list(self._batches)[-SETTLED:]
        self._batches.clear()

    @property
    def settled(self) -> bool:
        """Whether enough was seen of the present setting to judge it."""
        return len(self._batches) >= SETTLED and bool(self._frames)

    def work(self, setting: Setting) -> float:
        """Predict the seconds of computing that one image takes, on average."""
        unit = median(seconds / (self.overhead + pairs) for pairs, seconds in self._batches)
        batches = sum(unit * (self.overhead + pairs) for pairs in setting.batches if pairs)
        results = median(self._results) if self._results else 0.0
        return (median(self._frames) + (batches + results) / setting.every) / setting.take

    def _learn_overhead(self) -> None:
        """Compare the last batches before a change of the setting with the first ones after it.

        So close together they were computed under the same load by others, which varies more than the machine.
        """
        (pairs, seconds), (pairs_before, seconds_before) = _typical(self._batches), _typical(self._before)
        self._before = []
        ratio = pairs / pairs_before
        if ratio == 1:
            return
        slope = (seconds - seconds_before) / (pairs - pairs_before)
        # A longer batch that took no longer: the machine is far from full.
        found = seconds / slope - pairs if slope > 0 else MOST_OVERHEAD
        # The smaller the change, the more of it is noise; from a factor of two on it is believed.
        belief = min(abs(log2(ratio)), 1.0)
        self.overhead += belief * (min(max(found, 0.0), MOST_OVERHEAD) - self.overhead)


def _typical(batches: Iterable[tuple[int, float]]) -> tuple[float, float]:
    """Return medians of pairs and of seconds."""
    pairs, seconds = zip(*batches, strict=True)
    return median(pairs), median(seconds)
