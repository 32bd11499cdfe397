#!/usr/bin/env bash
# Test on several GPUs, or in several CPU processes where there is no GPU.
#
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
#
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail

if [[ $# -lt 3 ]]; then
  echo "usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]" >&2
  exit 2
fi
. "$(dirname -- "${BASH_SOURCE[0]}")/launch.sh"
dist_launch "$3" test.py "$1" "$2" --launcher pytorch "${@:4}"
