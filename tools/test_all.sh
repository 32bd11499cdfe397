#!/usr/bin/env bash
#
# Everything that must be green: lint, formatting, and all tests, slow ones too.
#
#   bash tools/test_all.sh                       # all of it
#   bash tools/test_all.sh tests/heads -k ssd    # lint, and some of the tests
#
# Arguments go to pytest. Sets the environment up first if need be
# (tools/setup.sh). The last line is pytest's own summary. While working,
# `pytest` alone is quicker: it leaves out the tests marked slow.
set -euo pipefail

. "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
here="$PWD"
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
if [[ "$here" != "$PWD" && $# -gt 0 ]]; then
  echo "test_all: paths are taken from $PWD" >&2
fi

"$PY" -m ruff check .
"$PY" -m ruff format --check .

# A worker for each core (up to 8), one thread each: quicker than one worker with
# all threads, and workers with several threads would get in each other's way.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MKL_NUM_THREADS="${MKL_NUM_THREADS:-1}"
exec "$PY" -m pytest -m '' -n "${TEST_WORKERS:-auto}" --maxprocesses 8 "$@"
