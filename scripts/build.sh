#!/usr/bin/env bash
# Builds the package with colcon into install/, or does nothing where the same sources were built with the same environment.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s -- "${VENV:-.venv}")/bin/python

contents() {
  printf '%s\n' "$python"
  find package.xml setup.py setup.cfg moving_object_detector launch config models resource -type f -not -name '*.pyc' -print0 |
    sort -z | xargs -0 sha256sum --
}

if [[ -e install/.built ]] && contents | cmp -s - install/.built; then
  exit
fi
# Until it has ended well, what is installed is of no known state.
rm -f install/.built
# python -m colcon: the interpreter that builds is the one that the installed programs start with.
"$python" -m colcon --log-level error build --packages-select moving_object_detector --event-handlers console_direct-
contents >install/.built
