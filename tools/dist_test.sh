#!/usr/bin/env bash
# Test on several GPUs (or, without any, several CPU processes).
#
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
#
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail

if [[ $# -lt 3 ]]; then
  echo "usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]" >&2
  exit 2
fi
CONFIG="$1"
CHECKPOINT="$2"
GPUS="$3"
shift 3

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
  --master_addr="$MASTER_ADDR" --master_port="$PORT" --nproc_per_node="$GPUS" \
  "$here/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "$@"
