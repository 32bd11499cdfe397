#!/usr/bin/env bash
# Test in a Slurm job, with the arguments of MMDetection's slurm_test.sh.
#
#   GPUS=8 tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of
#   tools/test.py]
#
# Environment: GPUS, in all (default: 8); GPUS_PER_NODE (8, or GPUS if that is less);
# CPUS_PER_TASK (5); SRUN_ARGS, further arguments of srun.
set -euo pipefail

if [[ $# -lt 4 ]]; then
  echo "usage: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]" >&2
  exit 2
fi
. "$(dirname -- "${BASH_SOURCE[0]}")/launch.sh"
slurm_launch "$1" "$2" test.py "$3" "$4" --launcher slurm "${@:5}"
