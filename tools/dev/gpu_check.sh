#!/usr/bin/env bash
# Check the heads on a GPU and measure them there.
#
#   bash tools/dev/gpu_check.sh heads       # losses, speed and memory, about 4 minutes
#   bash tools/dev/gpu_check.sh training    # kill and resume, study, about 8 minutes
#   bash tools/dev/gpu_check.sh training --dry     # the same, tiny, on the CPU
#
# The two parts are two calls, for machines that are lent for ten minutes per call. They
# write docs/results/gpu_*.csv, or into another folder with --out; `python -m
# tools.dev.docs` then renders docs/results/gpu.md.
#
# A machine without a network needs PyTorch alone; wheels are carried there. The data are
# in this checkout, data/bccd. Here, for the machine's Python and platform:
#
#   pip download -d wheels --no-deps --only-binary=:all: --python-version 3.12 \
#     --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
#     --platform manylinux_2_27_x86_64 -r tools/dev/gpu/wheels.txt
#
# and there (leave out wheels of what the machine has, such as NumPy and OpenCV):
#
#   pip install --no-index --no-deps --target site wheels/*.whl
#   PYTHONPATH=site bash tools/dev/gpu_check.sh heads
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python}" -m tools.dev.gpu.check "$@"
