#!/usr/bin/env bash
# Train in a Slurm job, with the arguments of MMDetection's slurm_train.sh.
#
#   GPUS=16 tools/slurm_train.sh PARTITION JOB_NAME CONFIG [WORK_DIR] [arguments of
#   tools/train.py]
#
# Environment: GPUS, in all (default: 8); GPUS_PER_NODE (8, or GPUS if that is less);
# CPUS_PER_TASK (5); SRUN_ARGS, further arguments of srun.
set -euo pipefail

if [[ $# -lt 3 ]]; then
  echo "usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [WORK_DIR] [arguments of tools/train.py]" >&2
  exit 2
fi
. "$(dirname -- "${BASH_SOURCE[0]}")/launch.sh"
rest=("${@:4}")
if [[ $# -gt 3 && "$4" != -* ]]; then
  rest=(--work-dir "$4" "${@:5}")
fi
slurm_launch "$1" "$2" train.py "$3" --launcher slurm ${rest[@]+"${rest[@]}"}
