#!/usr/bin/env bash
# Train on several GPUs, or in several CPU processes where there is no GPU.
#
#   tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
#
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail

if [[ $# -lt 2 ]]; then
  echo "usage: tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]" >&2
  exit 2
fi
. "$(dirname -- "${BASH_SOURCE[0]}")/launch.sh"
dist_launch "$2" train.py "$1" --launcher pytorch "${@:3}"
