#!/usr/bin/env bash
# Makes requirements/lock*.txt anew: the versions and hashes of everything that `make env` installs, for Python 3.10 to 3.13.
# Extras stay in the names (coverage[toml]): else pip takes the newest release for them, which has no hash here.
# PyTorch and what its CUDA build alone needs are left out (see torch.txt). Needs uv: pip install uv
set -euo pipefail
cd "$(dirname "$0")/../requirements"

command -v uv >/dev/null || {
  echo 'error: uv is not on the path: pip install uv' >&2
  exit 1
}
lock() {
  UV_CUSTOM_COMPILE_COMMAND='make lock' uv pip compile --quiet --universal --python-version 3.10 --generate-hashes \
    --no-annotate --no-strip-extras --no-emit-package torch "$@"
}
cuda=(cuda-bindings cuda-toolkit nvidia-cublas nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13 triton)

lock crf-build.txt -o lock-build.txt
lock torch.txt runtime.txt report.txt train.txt build.txt --excludes <(printf '%s\n' "${cuda[@]}") -c lock-build.txt -o lock.txt
lock test.txt -c lock-build.txt -c <(sed 's/\[.*]==/==/' lock.txt) -o lock-test.txt
lock ros.txt -c lock-build.txt -c <(sed 's/\[.*]==/==/' lock.txt) -o lock-ros.txt
if grep -E '^(nvidia|cuda)-|^triton' lock.txt; then
  echo 'error: the packages above belong to PyTorch: add them to the list in scripts/lock.sh' >&2
  exit 1
fi
