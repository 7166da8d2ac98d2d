"""Run a command with more arguments from an environment variable: with_args.py VARIABLE COMMAND...

The arguments are split into words as a shell does, quotes included, but not executed by one.
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
