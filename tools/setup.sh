#!/usr/bin/env bash
#
# Set up everything that mmdet_consistent needs, with pip alone: PyTorch, MMDetection,
# the developer's tools, and the package itself as a link to this checkout.
#
#   bash tools/setup.sh     # set up; a second run takes a second
#   . tools/setup.sh        # in a bash script: the same, and export PY, its python
#
# It installs into the environment of SETUP_PYTHON=/path/to/python if that is set, else
# into the active virtualenv or conda environment (not conda's base), else into .venv,
# which it makes with PYTHON (default: python3; 3.9 or newer). What is installed stays:
# mmcv with or without compiled operators, onedl-mmcv, -mmengine and -mmdetection.
#
# Linux without a working NVIDIA GPU gets the CPU build of PyTorch (0.2 GB), never the CUDA
# build (several GB). Settings: TORCH_SPEC, pip's arguments for another PyTorch, such as
# 'torch==2.4.1+cu121 --extra-index-url https://...'; TORCH_INDEX_URL, where CPU builds are;
# SETUP_EXTRAS, 'dev' or 'dev,integrations' (what all tests need).

# Sourced: work in another process, so that no option or failure reaches the caller.
if [[ "${BASH_SOURCE[0]}" != "$0" ]]; then
  PY="$(bash "${BASH_SOURCE[0]}")" || return 1
  export PY
  return 0
fi

set -euo pipefail
root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
die() {
  printf 'setup: error: %s\n' "$@" >&2
  exit 1
}
if (($# > 0)); then exec sed -n '3,/^$/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"; fi
# One set-up of this checkout at a time, where there are locks.
if command -v flock >/dev/null && exec 9<"${BASH_SOURCE[0]}"; then flock 9 || true; fi

if [[ -n "${SETUP_PYTHON:-}" ]]; then
  py="$SETUP_PYTHON"
elif [[ -n "${VIRTUAL_ENV:-}" ]]; then
  py="$VIRTUAL_ENV/bin/python"
elif [[ -n "${CONDA_PREFIX:-}" && "${CONDA_DEFAULT_ENV:-}" != base ]]; then
  py="$CONDA_PREFIX/bin/python"
else
  py="$root/.venv/bin/python"
  if [[ ! -e "$root/.venv/.made" ]] && ! "$py" -m pip --version >/dev/null 2>&1; then
    echo 'setup: making .venv' >&2
    "${PYTHON:-python3}" -m venv --clear "$root/.venv" >&2 \
      || die "'${PYTHON:-python3} -m venv' failed (Debian: sudo apt-get install" \
        'python3-venv); another python: PYTHON=/path/to/python3 bash tools/setup.sh'
    touch "$root/.venv/.made"
  fi
fi
"$py" -c 'import sys; sys.exit(sys.version_info < (3, 9))' \
  || die "$py is missing or older than Python 3.9; deactivate its environment, or set" \
    'PYTHON=/path/to/a/newer/python3 and remove .venv'
"$py" "$root/tools/setup/install.py" >&2
echo "$py"
