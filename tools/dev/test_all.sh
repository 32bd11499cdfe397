#!/usr/bin/env bash
#
# Everything that must be green: lint, formatting, and all tests, slow ones too.
#
#   bash tools/dev/test_all.sh                       # all of it
#   bash tools/dev/test_all.sh tests/heads -k ssd    # lint, and some of the tests
#
# Arguments go to pytest. Sets the environment up first if need be
# (tools/setup.sh). The last line is pytest's own summary. While working,
# `pytest` alone is quicker: it leaves out the tests marked slow.
set -euo pipefail

. "$(dirname -- "${BASH_SOURCE[0]}")/../setup.sh"
here="$PWD"
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
if [[ "$here" != "$PWD" && $# -gt 0 ]]; then
  echo "test_all: paths are taken from $PWD" >&2
fi

# The analysis page is tested in a real browser. A CI machine (Debian or Ubuntu,
# as root) gets one if it has none; elsewhere those tests say that they skip.
if [[ "${CI:-}" == true && "$(id -u)" == 0 ]] && command -v apt-get >/dev/null \
  && ! command -v chromium chromium-browser google-chrome >/dev/null; then
  echo 'test_all: installing Chromium (1 minute)'
  log="$(mktemp)"
  if ! { apt-get update && apt-get install -y --no-install-recommends chromium; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo 'test_all: no Chromium (above): the browser tests are skipped' >&2
  fi
  rm -f "$log"
fi

"$PY" -m ruff check .
"$PY" -m ruff format --check .

# A worker for each core (up to 8), one thread each: quicker than one worker with
# all threads, and workers with several threads would get in each other's way.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MKL_NUM_THREADS="${MKL_NUM_THREADS:-1}"
exec "$PY" -m pytest -m '' -n "${TEST_WORKERS:-auto}" --maxprocesses 8 "$@"
