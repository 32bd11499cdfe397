#!/usr/bin/env bash
#
# Run the quick tests with other versions of the stack, and write docs/versions.md.
#
#   bash tools/versions.sh                 # all stacks below
#   bash tools/versions.sh oldest forks    # some of them
#   TESTS='tests/heads tests/losses' bash tools/versions.sh oldest    # some tests
#
# Each gets an environment of its own in work_dirs/versions/NAME, made by
# tools/setup.sh; a second run uses it again. Making one takes as long as a first
# set-up (mmcv is built where there is no wheel). A stack that can't be installed,
# because the index no longer has it or there is no such Python, is said to be so.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
ROOT="$PWD"
HERE="$ROOT/work_dirs/versions"
SOME="${TESTS:-}"
read -ra TESTS <<<"${SOME:-tests}"
PAGE="$ROOT/docs/versions.md"

# NAME|PYTHON|PyTorch|what goes in before tools/setup.sh, which adds the rest. (mmcv is
# chosen by setup.sh to go with mmdet: 2.0.1 with 3.0.)
STACKS=(
  'oldest|python3.9|torch==2.0.1|mmengine==0.7.4 mmdet==3.0.0 yapf==0.40.1 tomli importlib-metadata zipp'
  '2024|python3.10|torch==2.3.1|mmengine==0.10.4 mmdet==3.3.0'
  'today|python3||'
  'forks|python3||onedl-mmengine==0.10.12 onedl-mmdetection==3.5.1 onedl-mmcv==2.3.6'
)

row() { printf '| %s | %s | %s | %s |\n' "$@"; }

why() { # why LOG: the line that says it, short enough for a table
  grep -m 1 -oE '(ERROR|error): .*' "$1" | cut -c1-100 | tr '|`' '  ' || echo 'see the log'
}

run_stack() { # run_stack NAME PYTHON TORCH OTHERS: one row of the table
  local name="$1" python="$2" torch="$3" env="$HERE/$1" log="$HERE/$1.log" others
  local wanted="$python ${torch:-tools/setup/tested.txt} $4"
  read -ra others <<<"$4"
  if ! "$python" --version >/dev/null 2>&1; then
    row "$name" "$wanted" – "not run: no $python here"
    return
  fi
  if [[ ! -x "$env/bin/python" ]]; then "$python" -m venv "$env"; fi
  : >"$log"
  local setup=(env SETUP_PYTHON="$env/bin/python" bash tools/setup.sh)
  if [[ -n "$torch" ]]; then setup=(env TORCH_SPEC="$torch" "${setup[@]:1}"); fi
  if ((${#others[@]} > 0)); then
    # Pure Python but onedl-mmcv, which is built, and wants PyTorch first.
    for package in "${others[@]}"; do
      local options=(--no-deps)
      if [[ "$package" == onedl-mmcv* ]]; then
        "$env/bin/python" -m pip install -q torch 'setuptools<81' wheel ninja numpy >>"$log" 2>&1 || true
        options+=(--no-build-isolation)
      fi
      if ! MMCV_WITH_OPS=1 "$env/bin/python" -m pip install -q "${options[@]}" "$package" >>"$log" 2>&1; then
        row "$name" "$wanted" – "$package can't be installed: $(why "$log")"
        return
      fi
    done
  fi
  if ! "${setup[@]}" >>"$log" 2>&1; then
    row "$name" "$wanted" – "set-up failed: $(why "$log")"
    return
  fi
  local versions outcome
  versions="$("$env/bin/python" tools/setup/check_env.py verify | tr '\n' ',' | sed 's/,$//; s/,/, /g')"
  OMP_NUM_THREADS=1 "$env/bin/python" -m pytest -q -p no:cacheprovider "${TESTS[@]}" >>"$log" 2>&1 || true
  outcome="$(tail -n 1 "$log" | sed 's/=//g; s/^ *//; s/ *$//')"
  row "$name" "$wanted" "$versions" "$outcome"
}

mkdir -p "$HERE"
rows="$HERE/rows"
: >"$rows"
for stack in "${STACKS[@]}"; do
  IFS='|' read -r name python torch others <<<"$stack"
  if (($# > 0)) && [[ " $* " != *" $name "* ]]; then
    row "$name" "$python ${torch:-tools/setup/tested.txt} $others" – 'not run' >>"$rows"
    continue
  fi
  echo "versions: $name" >&2
  run_stack "$name" "$python" "$torch" "$others" | tee -a "$rows"
done

# Put the table between the page's marks; written beside, then renamed.
{
  sed '/<!-- versions:begin -->/q' "$PAGE"
  printf 'Made by `%sbash tools/versions.sh%s`.\n\n' "${SOME:+TESTS='$SOME' }" "${*:+ $*}"
  printf '| stack | asked for | got | %s |\n| --- | --- | --- | --- |\n' "${SOME:-quick tests}"
  cat "$rows"
  sed -n '/<!-- versions:end -->/,$p' "$PAGE"
} >"$PAGE.tmp"
mv -f -- "$PAGE.tmp" "$PAGE"
