#!/usr/bin/env bash
# Makes the virtual environment with the pinned packages: make_env.sh PYTHON FOLDER wheels|sourced
# PIP_ARGS is passed to pip (an index with CPU or Jetson builds of PyTorch, say); CRF=0 does without the CRF refinement.
set -euo pipefail

python=$1
folder=$2
ros=$3
requirements=$(cd "$(dirname "$0")/../requirements" && pwd)
read -r -a pip_args <<<"${PIP_ARGS:-}"

fail() {
  printf 'error: %s\n' "$@" >&2
  exit 1
}

version_at_least() { "$python" -c "import sys; sys.exit(sys.version_info < ($1))"; }

check_machine() {
  command -v "$python" >/dev/null || fail "$python is not there; install Python 3.10 to 3.13, or: make env PYTHON=/path/to/python3"
  version_at_least '3, 10' || fail "$("$python" --version) is too old; Python 3.10 to 3.13 is needed: make env PYTHON=python3.12"
  ! version_at_least '3, 14' || fail "$("$python" --version) is too new; Python 3.10 to 3.13 is needed: make env PYTHON=python3.12"
  "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python has no venv module; on Debian and Ubuntu: apt install python3-venv"
  if [[ ${CRF:-1} != 0 ]]; then
    command -v c++ >/dev/null || command -v g++ >/dev/null ||
      fail 'there is no C++ compiler, which pydensecrf2 is built with; install gcc (Debian, Ubuntu: apt install g++),' \
        'or do without the CRF refinement: make env CRF=0'
    local headers
    headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [[ -e $headers/Python.h ]] ||
      fail "$headers/Python.h is missing, which pydensecrf2 is built with; on Debian and Ubuntu: apt install python3-dev," \
        'or do without the CRF refinement: make env CRF=0'
  fi
}

create() {
  local options=()
  if [[ $ros == sourced ]]; then
    options+=(--system-site-packages)
  fi
  rm -rf "$folder"
  "$python" -m venv "${options[@]}" "$folder"
  log=$folder/install.log
}

# Shows the large downloads; all goes to the log.
install() {
  local status=0
  "$folder/bin/python" -m pip install --disable-pip-version-check --progress-bar off -c "$requirements/constraints.txt" \
    "${pip_args[@]}" "$@" 2>&1 | tee -a "$log" |
    sed -u -n -E 's/^ *Downloading (.*\/)?([^/ -]+)-([^- ]+)[^ ]* (\([0-9.]+ [MG]B\)).*/      \2 \3 \4/p' ||
    status=$?
  ((status == 0)) || {
    grep -v '^WARNING' "$log" | tail -n 15 >&2
    fail "pip did not install $*; the whole log is $log"
  }
}

check_machine
printf '[1/4] %s: %s, ROS 2 %s\n' "$folder" "$("$python" --version)" "${ROS_DISTRO:-as wheels}"
create
printf '[2/4] build tools\n'
install -r "$requirements/build.txt"
printf '[3/4] pinned packages\n'
packages=(-r "$requirements/runtime.txt" -r "$requirements/report.txt" -r "$requirements/train.txt" -r "$requirements/test.txt" -r "$requirements/view.txt")
if [[ $ros == wheels ]]; then
  packages+=(-r "$requirements/ros.txt")
fi
install "${packages[@]}"
if [[ ${CRF:-1} != 0 ]]; then
  printf '[4/4] pydensecrf2, compiled (about a minute)\n'
  CYTHON_FORCE_REGEN=1 install --no-build-isolation --no-deps -r "$requirements/crf.txt"
else
  printf '[4/4] without the CRF refinement (CRF=0)\n'
fi
"$folder/bin/python" -c 'import cv2, numpy, rclpy, sensor_msgs.msg, torch' 2>>"$log" || {
  tail -n 5 "$log" >&2
  if [[ $ros == sourced ]]; then
    fail "ROS 2 ${ROS_DISTRO:-} is sourced, but $("$python" --version) cannot use it; take the distribution's own Python" \
      '(make env PYTHON=/usr/bin/python3), or a shell in which no ROS is sourced'
  fi
  fail "the environment in $folder does not work; the whole log is $log"
}
