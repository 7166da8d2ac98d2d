"""How every program of the package ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

from moving_object_detector.common.errors import UserError


def run_program(body: Callable[[], int]) -> int:
    """Run ``body`` and return its exit status: 2 after a user's mistake, 130 after Ctrl-C."""
    try:
        return body()
    except UserError as error:
        sys.stderr.write(f'error: {error}\n')
        return 2
    except KeyboardInterrupt:
        return 130
