# Starts the processes of dist_train.sh and dist_test.sh, which source this file.
#
# Reads NNODES, NODE_RANK, MASTER_ADDR and PORT (for several machines) and PYTHON; each
# has a default.

# dist_launch GPUS TOOL [arguments]: run tools/TOOL in GPUS processes, and exit with
# their status.
dist_launch() {
  local gpus="$1" tool="$2" here
  shift 2
  here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
  if [[ -z "${PYTHON:-}" ]]; then
    PYTHON=python
    if [[ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" && -x "$here/../.venv/bin/python" ]]; then
      PYTHON="$here/../.venv/bin/python"
    fi
  fi
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
    "$here/$tool" "$@"
}
