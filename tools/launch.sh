# Starts the processes of dist_*.sh and slurm_*.sh, which source this file.
# shellcheck shell=bash

# Set PYTHON, unless it is set, to the active environment's python or .venv's.
choose_python() {
  local venv
  if [[ -z "${PYTHON:-}" ]]; then
    venv="$(dirname -- "${BASH_SOURCE[0]}")/../.venv/bin/python"
    PYTHON=python
    if [[ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" && -x "$venv" ]]; then
      PYTHON="$venv"
    fi
  fi
}

tools_folder() {
  cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd
}

# dist_launch GPUS TOOL [arguments]: run tools/TOOL in GPUS processes, and exit with
# their status. Reads NNODES, NODE_RANK, MASTER_ADDR and PORT (for several machines) and
# PYTHON; each has a default.
dist_launch() {
  local gpus="$1" tool="$2"
  shift 2
  choose_python
  NNODES="${NNODES:-1}"
  MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}"
  if [[ -z "${PORT:-}" ]]; then
    PORT=29500
    if [[ "$NNODES" == 1 ]]; then
      PORT="$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')"
    fi
  fi
  exec "$PYTHON" -m torch.distributed.run \
    --nnodes="$NNODES" --node_rank="${NODE_RANK:-0}" \
    --master_addr="$MASTER_ADDR" --master_port="$PORT" --nproc_per_node="$gpus" \
    "$(tools_folder)/$tool" "$@"
}

# slurm_launch PARTITION JOB_NAME TOOL [arguments]: run tools/TOOL as GPUS tasks of a
# Slurm job. Reads GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS, MASTER_PORT and PYTHON;
# each has a default.
slurm_launch() {
  local partition="$1" name="$2" tool="$3"
  shift 3
  choose_python
  GPUS="${GPUS:-8}"
  GPUS_PER_NODE="${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}"
  # Jobs on one machine need different ports; MMEngine would take 29500 for each.
  export MASTER_PORT="${MASTER_PORT:-$((20000 + RANDOM % 10000))}"
  # SRUN_ARGS is a list of words.
  # shellcheck disable=SC2086
  exec srun --partition="$partition" --job-name="$name" \
    --gres="gpu:$GPUS_PER_NODE" --ntasks="$GPUS" --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "$PYTHON" -u "$(tools_folder)/$tool" "$@"
}
