#!/usr/bin/env bash
#
# RetinaNet and ConRetinaNet on blood cells, trained and compared on this machine.
#
#   tools/quickstart.sh            # about five minutes on two CPU cores
#   tools/quickstart.sh --smoke    # about one minute: does it run at all?
#
# Sets the environment up first if need be (tools/setup.sh).
set -euo pipefail

. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
exec "$PY" tools/quickstart.py "$@"
