"""The learning rate over a run."""

from __future__ import annotations

from typing import Final

RISE: Final = 0.05
START: Final = 1 / 25
END: Final = 1 / 25e4


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Return the rate of a step: from ``peak`` / 25 up to ``peak`` over 5 % of the run, then down to nearly 0.

    Both lines are straight (Smith and Topin 2019, with RAFT's settings); a function of the step alone, so that
    nothing of it has to be kept in a checkpoint.

    Args:
        step: From 0 to ``steps`` - 1.
        steps: Length of the run.
        peak: Greatest rate.

    """
    top = max(RISE * steps - 1, 0.0)
    if step <= top:
        share = step / top if top else 1.0
        return peak * (START + (1 - START) * share)
    share = (step - top) / max(steps - 1 - top, 1.0)
    return peak * (1 + (END - 1) * share)
