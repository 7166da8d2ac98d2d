"""What the detector's work costs on this machine now, measured while it works."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from math import log2
from statistics import median
from typing import Final, NamedTuple

from moving_object_detector.detection.setting import Setting

SAMPLES = 9
"""Of each cost the last ones count, by their median: four of them may be outliers."""
SETTLED = 5
"""Batches after which a new setting is judged."""
MOST_OVERHEAD = 50.0
LEAST_HALF: Final = 0.25
"""Of a pair's cost at the whole size, where the generator is all of it: half the size has a quarter of the pixels."""
UNKNOWN_HALF: Final = 0.5
"""Until it is known: between that quarter and 1, where all is flow, or the generator does not fill a GPU."""


class Batch(NamedTuple):
    """What the flows and masks of some pairs took, all at one size."""

    pairs: float
    half: bool
    seconds: float


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
    batch of n pairs ``unit x (overhead + n)``, at half the generator's size ``unit x (overhead + half x n)``.
    The overhead is a property of the machine more than of its load, is nought on a CPU and is large on a
    GPU that a small batch cannot fill; half is between a quarter and 1, the more of a pair is flow the
    larger. Both are learnt from changes of the setting, which bring batches of another length or size.
    """

    def __init__(self) -> None:
        self.overhead = 0.0
        """What a batch costs beside its pairs, in pairs."""
        self.half = UNKNOWN_HALF
        """What a pair costs at half the generator's size, in pairs at the whole size."""
        self._frames: deque[float] = deque(maxlen=SAMPLES)
        self._results: deque[float] = deque(maxlen=SAMPLES)
        self._batches: deque[Batch] = deque(maxlen=SAMPLES)
        self._before: list[Batch] = []
        self._seen: set[tuple[int, bool]] = set()

    def frame(self, seconds: float) -> None:
        """Take note of what entering a frame took."""
        self._frames.append(seconds)

    def result(self, seconds: float) -> None:
        """Take note of what refining and publishing a result took."""
        self._results.append(seconds)

    def batch(self, pairs: int, seconds: float, *, half: bool = False) -> None:
        """Take note of what the flows and masks of a batch of pairs took, at half the generator's size or the whole."""
        if (pairs, half) not in self._seen:
            # Engines prepare themselves for a batch of new length: the first one says nothing.
            self._seen.add((pairs, half))
            return
        self._batches.append(Batch(pairs, half, seconds))
        if self._before and len(self._batches) == SETTLED:
            self._learn()

    def changed(self) -> None:
        """Judge by what comes from now on: the setting is another."""
        self._before = list(self._batches)[-SETTLED:]
        self._batches.clear()

    def forget(self) -> None:
        """Forget what batches took: it is not known of which setting they were."""
        self._batches.clear()
        self._before = []

    @property
    def settled(self) -> bool:
        """Whether enough was seen of the present setting to judge it."""
        return len(self._batches) >= SETTLED and bool(self._frames)

    def work(self, setting: Setting) -> float:
        """Predict the seconds of computing that one image takes, on average."""
        unit = median(batch.seconds / self._units(batch.pairs, batch.half) for batch in self._batches)
        batches = sum(unit * self._units(pairs, setting.half) for pairs in setting.batches if pairs)
        results = median(self._results) if self._results else 0.0
        return (median(self._frames) + (batches + results) / setting.every) / setting.take

    def _units(self, pairs: float, half: bool) -> float:
        """Return what a batch costs, in pairs at the whole size."""
        return self.overhead + (self.half if half else 1.0) * pairs

    def _learn(self) -> None:
        """Compare the last batches before a change of the setting with the first ones after it.

        So close together they were computed under the same load by others, which varies more than the machine.
        """
        after, before = _typical(self._batches), _typical(self._before)
        self._before = []
        if after.half == before.half:
            self._learn_overhead(after, before)
        else:
            self._learn_half(*((after, before) if after.half else (before, after)))

    def _learn_half(self, half: Batch, whole: Batch) -> None:
        """Take for the size's doing what the overhead does not explain."""
        unit = whole.seconds / self._units(whole.pairs, whole.half)
        found = (half.seconds / unit - self.overhead) / half.pairs if unit > 0 else 1.0
        self.half = min(max(found, LEAST_HALF), 1.0)

    def _learn_overhead(self, after: Batch, before: Batch) -> None:
        share = self.half if after.half else 1.0
        pairs, pairs_before = share * after.pairs, share * before.pairs
        ratio = pairs / pairs_before
        if ratio == 1:
            return
        slope = (after.seconds - before.seconds) / (pairs - pairs_before)
        # A longer batch that took no longer: the machine is far from full.
        found = after.seconds / slope - pairs if slope > 0 else MOST_OVERHEAD
        # The smaller the change, the more of it is noise; from a factor of two on it is believed.
        belief = min(abs(log2(ratio)), 1.0)
        self.overhead += belief * (min(max(found, 0.0), MOST_OVERHEAD) - self.overhead)


def _typical(batches: Iterable[Batch]) -> Batch:
    """Return medians of pairs and of seconds of batches at one size."""
    pairs, halves, seconds = zip(*batches, strict=True)
    return Batch(median(pairs), halves[0], median(seconds))
