#!/usr/bin/env bash
#
# Train a RetinaNet on, as it is and with a consistent head, and compare the two.
#
#   tools/quickstart.sh            # a few minutes on two CPU cores
#   tools/quickstart.sh --smoke    # about one minute, to see that everything runs
#
# Options: --smoke; --seed N; --work-dir FOLDER; --restart discards earlier runs. Sets up
# the environment first if necessary (tools/setup.sh).
set -euo pipefail

case " $* " in
  *' -h '* | *' --help '*) exec sed -n '3,/^set/{/^#/s/^# \{0,1\}//p;}' "$0" ;;
esac
. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
exec "$PY" tools/quickstart.py "$@"
