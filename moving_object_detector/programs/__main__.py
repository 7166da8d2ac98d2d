"""Runs any program from the checkout: ``python -m moving_object_detector.programs NAME ...``."""

from __future__ import annotations

import sys
from importlib import import_module

from moving_object_detector.programs import PROGRAMS

if len(sys.argv) < 2 or sys.argv[1] not in PROGRAMS:
    sys.exit(f'error: give the name of a program: {", ".join(PROGRAMS)}')
module, _, function = PROGRAMS[sys.argv[1]][0].partition(':')
sys.exit(getattr(import_module(f'moving_object_detector.{module}'), function)(sys.argv[2:]))
