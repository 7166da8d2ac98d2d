#!/usr/bin/env bash
# Runs pytest: test.sh PYTHON [ARGUMENT...]. First the tests that compute, then those over DDS, which mostly wait and have
# no computing test beside them while they measure rates; both in two processes, each with its own ROS domain.
set -uo pipefail
python=$1
shift
NOTHING_CHOSEN=5

# With one thread each: threads that wait for each other on busy cores take many times as long.
OMP_NUM_THREADS=1 "$python" -m pytest -n 2 --dist loadfile -m "not live" "$@"
computes=$?
"$python" -m pytest -n 2 --dist loadfile -m live "$@"
talks=$?
if ((computes != NOTHING_CHOSEN && talks == NOTHING_CHOSEN)); then
  talks=0
elif ((computes == NOTHING_CHOSEN)); then
  computes=0
fi
exit $((computes ? computes : talks))
