"""Run a command with more arguments out of an environment variable: with_args.py VARIABLE COMMAND...

They are split into words as a shell does, quotes included, and never executed.
"""

from __future__ import annotations

import os
import shlex
import sys

variable, *command = sys.argv[1:]
text = os.environ.get(variable, '')
try:
    words = shlex.split(text)
except ValueError as problem:
    sys.exit(f'error: {variable} cannot be split into words ({problem}): {text}')
os.execvp(command[0], [*command, *words])
