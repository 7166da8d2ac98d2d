#!/usr/bin/env bash
# Runs a command with the installed package on its paths: with_install.sh COMMAND...
set -eo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# colcon's file reads variables that may be unset.
# shellcheck disable=SC1091
source "$root/install/local_setup.bash"
exec "$@"
