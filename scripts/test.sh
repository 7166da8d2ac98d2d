#!/usr/bin/env bash
# Runs pytest: test.sh PYTHON [ARGUMENT...]. First what computes, in two processes; then what talks over DDS, alone, since
# rates are measured there.
set -uo pipefail
python=$1
shift
NOTHING_CHOSEN=5

# With one thread each: threads that wait for each other on busy cores take many times as long.
OMP_NUM_THREADS=1 "$python" -m pytest -n 2 --dist loadfile -m "not live" "$@"
computes=$?
"$python" -m pytest -m live "$@"
talks=$?
if ((computes != NOTHING_CHOSEN && talks == NOTHING_CHOSEN)); then
  talks=0
elif ((computes == NOTHING_CHOSEN)); then
  computes=0
fi
exit $((computes ? computes : talks))
