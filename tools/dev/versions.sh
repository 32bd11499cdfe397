#!/usr/bin/env bash
#
# Run the quick tests with other versions of the stack, and write docs/versions.md.
#
#   bash tools/dev/versions.sh                 # all stacks below
#   bash tools/dev/versions.sh oldest forks    # some of them
#   TESTS='tests/heads tests/losses' bash tools/dev/versions.sh oldest    # some tests
#
# Each gets an environment of its own in work_dirs/versions/NAME, made by
# tools/setup.sh; a second run uses it again. Making one takes as long as a first
# set-up (mmcv is built where there is no wheel). Today's stack is CI's: the project's
# own .venv. A stack that can't be installed, because the index no longer has it or
# there is no such Python, is said to be so. Rows of stacks that aren't run are kept.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
ROOT="$PWD"
HERE="$ROOT/work_dirs/versions"
SOME="${TESTS:-}"
read -ra TESTS <<<"${SOME:-tests}"
PAGE="$ROOT/docs/versions.md"

# NAME|PYTHON|PyTorch|what goes in before tools/setup.sh, which adds the rest. (mmcv is
# chosen by setup.sh to go with mmdet: 2.0.1 with 3.0, onedl-mmcv with the fork. The
# fork of mmdet imports imgaug, which is imaug's; all after it is what that needs.)
STACKS=(
  'oldest|python3.9|torch==2.0.1|setuptools==69.5.1 mmengine==0.7.4 mmdet==3.0.0 yapf==0.40.1 tomli importlib-metadata zipp'
  '2024|python3.10|torch==2.3.1|mmengine==0.10.4 mmdet==3.3.0'
  'today|python3||'
  'forks|python3||onedl-mmengine==0.10.12 onedl-mmdetection==3.5.1 imaug scikit-image imageio lazy-loader tifffile networkx'
)

row() { printf '| %s | %s | %s | %s | %s | %s |\n' "$@"; }

why() { # why LOG: the line that says it, short enough for a table
  grep -m 1 -oE '(ERROR|error): .*' "$1" | cut -c1-100 | tr '|`' '  ' || echo 'see the log'
}

when() { # the day and the commit, for a row to say how old it is
  local dirty=''
  if ! git diff --quiet HEAD -- . ':!docs/versions.md' 2>/dev/null; then dirty=', changed'; fi
  printf '%s, %s%s' "$(date +%F)" "$(git rev-parse --short HEAD 2>/dev/null || echo '?')" "$dirty"
}

skips() { # skips LOG: why tests were skipped, each reason once
  sed -n 's/^SKIPPED \[[0-9]*\] [^ ]*: //p' "$1" | sort -u | tr '|' ' ' \
    | awk 'NR > 1 {printf "<br>"} {printf "%s", $0}'
}

run_stack() { # run_stack NAME PYTHON TORCH OTHERS: one row of the table
  local name="$1" python="$2" torch="$3" env="$HERE/$1" log="$HERE/$1.log" others
  local wanted="$python ${torch:-tools/setup/tested.txt} $4"
  : >"$log"
  read -ra others <<<"$4"
  if [[ ! -x "$env/bin/python" ]] && ! "$python" --version >/dev/null 2>&1; then
    row "$name" "$wanted" – "not run: no $python here" – "$(when)"
    return
  fi
  local setup=(bash tools/setup.sh)
  if [[ "$name" == today ]]; then
    env="$ROOT/.venv"
  else
    if [[ ! -x "$env/bin/python" ]]; then "$python" -m venv "$env"; fi
    setup=(env SETUP_PYTHON="$env/bin/python" "${setup[@]}")
  fi
  if [[ -n "$torch" ]]; then setup=(env TORCH_SPEC="$torch" "${setup[@]}"); fi
  for package in ${others[@]+"${others[@]}"}; do
    if ! "$env/bin/python" -m pip install -q --no-deps "$package" >>"$log" 2>&1; then
      row "$name" "$wanted" – "$package can't be installed: $(why "$log")" – "$(when)"
      return
    fi
  done
  if ! "${setup[@]}" >>"$log" 2>&1; then
    row "$name" "$wanted" – "set-up failed: $(why "$log")" – "$(when)"
    return
  fi
  local versions outcome
  versions="$("$env/bin/python" tools/setup/check_env.py verify 2>>"$log" | tr '\n' ',' | sed 's/,$//; s/,/, /g')"
  OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 "$env/bin/python" -m pytest -q -rfEs \
    -p no:cacheprovider "${TESTS[@]}" >>"$log" 2>&1 || true
  outcome="$(tail -n 1 "$log" | sed 's/=//g; s/^ *//; s/ in [0-9.]*s.*//')"
  row "$name" "$wanted" "$versions" "${SOME:+$SOME: }$outcome" "$(skips "$log")" "$(when)"
}

rows() { # rows NAME...: the new rows of these, and the page's own of all others
  local stack name python torch others
  for stack in "${STACKS[@]}"; do
    IFS='|' read -r name python torch others <<<"$stack"
    if [[ " $* " == *" $name "* ]]; then
      cat "$HERE/$name.row"
    else
      grep "^| $name |" "$PAGE" \
        || row "$name" "$python ${torch:-tools/setup/tested.txt} $others" – 'not run' – –
    fi
  done
}

write_page() { # write_page NAME...: with their new rows; written beside, then renamed
  {
    sed '/<!-- versions:begin -->/q' "$PAGE"
    printf '| stack | asked for | got | quick tests | skipped | when, at |\n'
    printf '| --- | --- | --- | --- | --- | --- |\n'
    rows "$@"
    sed -n '/<!-- versions:end -->/,$p' "$PAGE"
  } >"$PAGE.tmp"
  mv -f -- "$PAGE.tmp" "$PAGE"
}

mkdir -p "$HERE"
for stack in "${STACKS[@]}"; do
  IFS='|' read -r name python torch others <<<"$stack"
  if (($# > 0)) && [[ " $* " != *" $name "* ]]; then continue; fi
  echo "versions: $name" >&2
  run_stack "$name" "$python" "$torch" "$others" | tee "$HERE/$name.row"
  write_page "$name"
done
