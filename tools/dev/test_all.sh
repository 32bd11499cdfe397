#!/usr/bin/env bash
#
# Run everything that must pass: lint, format, types, and all tests.
#
#   bash tools/dev/test_all.sh                       # all of it
#   bash tools/dev/test_all.sh tests/heads -k ssd    # the checks, and some tests
#
# Arguments are passed to pytest. Sets up the environment first if necessary
# (tools/setup.sh). The last line is pytest's own summary. While working, `pytest`
# alone is faster: it skips the tests marked slow.
set -euo pipefail

export SETUP_EXTRAS=dev,integrations
. "$(dirname -- "${BASH_SOURCE[0]}")/../setup.sh"
here="$PWD"
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
if [[ "$here" != "$PWD" && $# -gt 0 ]]; then
  echo "test_all: paths are relative to $PWD" >&2
fi

"$PY" -m ruff check .
"$PY" -m ruff format --check .
"$PY" -m mypy

# One worker per core (up to 8) with one thread each is faster than one worker with all
# threads, and workers with several threads would slow each other down.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MKL_NUM_THREADS="${MKL_NUM_THREADS:-1}"
exec "$PY" -m pytest -m '' -n "${TEST_WORKERS:-auto}" --maxprocesses 8 "$@"
