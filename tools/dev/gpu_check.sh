#!/usr/bin/env bash
# Check the heads on a GPU and measure them there; --dry does it, tiny, on the CPU.
# On a machine without a network, carry the wheels in beforehand:
#   pip download -d wheels -r requirements.txt triton pandas seaborn scipy
#   pip install --no-index --find-links wheels -r requirements.txt triton pandas seaborn scipy
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python}" -m tools.dev.gpu.check "$@"
