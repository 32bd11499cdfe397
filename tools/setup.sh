#!/usr/bin/env bash
#
# Set up everything that mmdet_consistent needs: PyTorch, mmcv with its compiled
# operators, mmengine, mmdet, the developer's tools, and the package itself as a
# link to this checkout.
#
#   bash tools/setup.sh                  # set up; a second run takes seconds
#   bash tools/setup.sh --print-python   # the same, and print the python to use
#   . tools/setup.sh                     # from a bash script: the same, and set
#                                        # and export PY, that python's full path
#
# Scripts beside this one begin with    . "$(dirname "$0")/setup.sh"
# and go on with                        "$PY" something.py
# Sourcing changes nothing else: no working directory, no shell option, no
# variable but PY. When the set-up fails it returns 1, which ends a script that
# runs under `set -e`.
#
# WHERE IT INSTALLS
#   1. SETUP_PYTHON=/path/to/python   into that interpreter's environment;
#   2. an active virtualenv or conda environment (conda's `base` does not count);
#   3. otherwise .venv in the project's root, which is made if it is not there.
# Nothing that is installed already is upgraded or replaced: what fits stays, and
# what cannot fit is named, with the way out, before anything is changed. (The one
# exception is a setuptools too old for PyTorch: it is raised, and that is said.)
# The forks onedl-mmcv, onedl-mmengine and onedl-mmdetection are as good; where
# onedl-mmdetection is installed already, onedl-mmcv is built to go with it.
#
# WHAT CAN BE CHOSEN (environment variables)
#   PYTHON           the python that makes .venv (default: python3; 3.9 or newer)
#   TORCH_SPEC       what to ask of pip for PyTorch, instead of the choice below,
#                    e.g. TORCH_SPEC='torch==2.4.1+cu121 --extra-index-url https://...'
#   TORCH_INDEX_URL  where the CPU build of PyTorch is (default: pytorch.org's own)
#   MAX_JOBS         compilers at a time when mmcv is built
#   XDG_CACHE_HOME   built mmcv wheels are kept below it (default: ~/.cache)
#
# PYTORCH: where it is missing, a Linux machine without a working NVIDIA GPU gets
# the CPU build (0.2 GB) and never the CUDA one (several GB); a machine with a
# GPU, and a Mac, get what `pip install torch` means there.
#
# TIME on two cores, everything to be fetched and built: about 4 minutes, most of
# it mmcv, which has no ready wheel for today's PyTorch. The wheel that is built
# is kept, so that the next environment takes about a minute.

# shellcheck shell=bash
if [ -z "${BASH_VERSION:-}" ]; then
  echo 'setup: please run this with bash:  bash tools/setup.sh' >&2
  # shellcheck disable=SC2317
  return 1 2>/dev/null || exit 1
fi

# Sourced: do the work in a process of its own, so that neither its options nor
# its failures reach the caller's shell.
if [[ "${BASH_SOURCE[0]}" != "$0" ]]; then
  PY="$(bash "${BASH_SOURCE[0]}" --print-python)" || return 1
  export PY
  return 0
fi

set -euo pipefail

ROOT="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
CHECK="$ROOT/tools/setup/check_env.py"
WHEELS="${XDG_CACHE_HOME:-$HOME/.cache}/mmdet_consistent/wheels"
WORK=''
PRINT=no

say() { printf 'setup: %s\n' "$*"; }

die() { # die LINE...: the first says what is wrong, the others what to do
  printf 'setup: error: %s\n' "$1" >&2
  shift
  if (($# > 0)); then printf '    %s\n' "$@" >&2; fi
  exit 1
}

clean_up() { if [[ -n "$WORK" ]]; then rm -rf -- "$WORK"; fi; }
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

case "${1:-}" in
  '') ;;
  --print-python) PRINT=yes ;;
  -h | --help)
    sed -n '3,/^$/{/^#/s/^# \{0,1\}//p;}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  *) die "unknown option: $1" 'bash tools/setup.sh --help tells the rest.' ;;
esac
# With --print-python, stdout is for the path alone: messages go to stderr.
exec 3>&1
if [[ "$PRINT" == yes ]]; then exec 1>&2; fi

check() { "$PY" "$CHECK" "$@"; }

# ------------------------------------------------------------ which python

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1
}

choose_environment() { # sets PY, and WHERE for the messages
  if [[ -n "${SETUP_PYTHON:-}" ]]; then
    PY="$(command -v -- "$SETUP_PYTHON")" || die "SETUP_PYTHON=$SETUP_PYTHON is not there."
    WHERE="the environment of $PY (SETUP_PYTHON)"
  elif [[ -n "${VIRTUAL_ENV:-}" ]]; then
    PY="$VIRTUAL_ENV/bin/python"
    WHERE="the active virtualenv $VIRTUAL_ENV"
  elif [[ -n "${CONDA_PREFIX:-}" && "${CONDA_DEFAULT_ENV:-}" != base ]]; then
    PY="$CONDA_PREFIX/bin/python"
    WHERE="the active conda environment $CONDA_PREFIX"
  else
    PY="$ROOT/.venv/bin/python"
    WHERE="$ROOT/.venv"
    return
  fi
  [[ "$PY" == /* ]] || PY="$PWD/$PY"
  if [[ ! -x "$PY" ]]; then
    die "$PY, the python of $WHERE, is not there." \
      'Leave that environment (deactivate, or conda deactivate) and run again.'
  fi
  if ! is_new_enough "$PY"; then
    die "Python 3.9 or newer is needed; $PY is $("$PY" --version 2>&1)." \
      'Leave that environment (deactivate, or conda deactivate) and run again,' \
      'with PYTHON=/path/to/a/newer/python if python3 is too old as well.'
  fi
}

make_venv() { # .venv in the root, unless it is there and whole
  local marker="$ROOT/.venv/.made-by-mmdet_consistent" python options=()
  if is_new_enough "$PY" && { [[ -e "$marker" ]] || "$PY" -c 'import pip' 2>/dev/null; }; then
    return
  fi
  if [[ -x "$PY" ]] && is_new_enough "$PY" && [[ ! -e "$ROOT/.venv/.making" ]]; then
    return # somebody else's, without pip: ensure_pip sees to that
  fi
  python="${PYTHON:-python3}"
  if ! is_new_enough "$python"; then
    die "Python 3.9 or newer is needed; '$python' is $("$python" --version 2>&1 || true)" \
      'Install one (e.g. from python.org) and run:  PYTHON=/path/to/python3 bash tools/setup.sh'
  fi
  if [[ -e "$ROOT/.venv" ]]; then
    say '.venv is broken or was left half-made: making it anew'
    options=(--clear)
  fi
  say "making .venv with $("$python" --version) (5 seconds)"
  mkdir -p "$ROOT/.venv"
  touch "$ROOT/.venv/.making" # (--clear removes it; a kill before that is seen)
  if ! "$python" -m venv ${options[@]+"${options[@]}"} "$ROOT/.venv" >"$WORK/log" 2>&1; then
    tail -n 15 "$WORK/log" >&2
    die "$python could not make a virtual environment." \
      'On Debian or Ubuntu:  sudo apt-get install python3-venv' \
      'or choose another python:  PYTHON=/path/to/python3 bash tools/setup.sh'
  fi
  touch "$marker"
  rm -f "$ROOT/.venv/.making"
}

ensure_pip() {
  if "$PY" -c 'import pip' 2>/dev/null; then return; fi
  "$PY" -m ensurepip >"$WORK/log" 2>&1 \
    || die "there is no pip in $WHERE." \
      'Put it there (uv: `uv pip install pip`; conda: `conda install pip`) and run again.'
}

# ------------------------------------------------------------ installing

setuptools_version() {
  "$PY" -c 'from importlib.metadata import version; print(version("setuptools"))' 2>/dev/null || true
}

pip() { # pip ARGUMENT...: quiet; what it said is in $WORK/log
  "$PY" -m pip --disable-pip-version-check --no-input "$@" >"$WORK/log" 2>&1
}

hold() { # write anew what pip must leave alone
  local options=()
  if [[ "$TESTED" == yes ]]; then options=(--tested); fi
  check constraints ${options[@]+"${options[@]}"} >"$WORK/constraints"
}

failed() { # failed WHAT: pip's last words and the way on
  tail -n 20 "$WORK/log" >&2
  die "$1 could not be installed; pip's last words are above." \
    "If it could not reach a package index: see to the network and run again; what" \
    "is done stays done. If it speaks of a conflict: $WHERE holds a" \
    "package that does not go with it; nothing was replaced. Remove or upgrade that" \
    "package, or leave the environment and run again."
}

install_group() { # install_group NAME TIME OPTION...: what is missing of a group
  local group="$1" time="$2" lines missing=() broken=()
  shift 2
  lines="$(check missing "$group")"
  while IFS= read -r line; do missing+=("$line"); done < <(printf '%s' "${lines:+$lines$'\n'}")
  lines="$(check broken "$group")"
  while IFS= read -r line; do broken+=("$line"); done < <(printf '%s' "${lines:+$lines$'\n'}")
  hold
  if ((${#broken[@]} > 0)); then
    say "putting ${broken[*]} in again: only part of it is there"
    pip install --ignore-installed --no-deps -c "$WORK/constraints" "${broken[@]}" \
      || failed "${broken[*]}"
  fi
  if ((${#missing[@]} > 0)); then
    say "installing ${missing[*]} ($time)"
    pip install "$@" -c "$WORK/constraints" "${missing[@]}" || failed "${missing[*]}"
  fi
}

install_torch() {
  local need version spec words options=()
  need="$(check missing torch)$(check broken torch)"
  if [[ -z "$need" ]]; then return; fi
  version="$(check tested torch)"
  if ! "$PY" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    version=2.8.0 # the last for Python 3.9
  fi
  case "$(uname -s)-$(uname -m)" in
    Linux-*)
      if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
        spec="torch==$version"
      else
        spec="torch==$version+cpu"
      fi
      ;;
    Darwin-x86_64) spec='torch==2.2.2' ;; # the last for Intel Macs
    *) spec="torch==$version" ;;
  esac
  spec="${TORCH_SPEC:-$spec}"
  read -ra words <<<"$spec"
  if [[ -n "$(check broken torch)" ]]; then options=(--ignore-installed); fi
  case "$spec" in
    *+cpu*) say "installing $spec (1 minute: 0.2 GB)" ;;
    *) say "installing $spec (several minutes where it comes with CUDA)" ;;
  esac
  hold
  options+=(-c "$WORK/constraints")
  if pip install "${options[@]}" "${words[@]}"; then return; fi
  if grep -q ResolutionImpossible "$WORK/log"; then failed "$spec"; fi
  # pip's own indexes may not have the CPU build: PyPI does not.
  if [[ "$spec" == *+cpu* ]]; then
    local url="${TORCH_INDEX_URL:-https://download.pytorch.org/whl/cpu}"
    say "not in pip's own indexes: taking it from $url"
    if pip install "${options[@]}" --extra-index-url "$url" "${words[@]}"; then return; fi
  fi
  tail -n 20 "$WORK/log" >&2
  die "PyTorch ($spec) could not be installed; pip's last words are above." \
    'See to the network, or name another source for the CPU build:' \
    '    TORCH_INDEX_URL=https://... bash tools/setup.sh' \
    'or another PyTorch (2.0 or newer; see https://pytorch.org/get-started):' \
    "    TORCH_SPEC='torch==2.6.0' bash tools/setup.sh" \
    'or install it yourself into an active environment and run again.'
}

# ------------------------------------------------------------ mmcv

mmcv_works() { check mmcv_ops >"$WORK/mmcv.log" 2>&1; }

put_mmcv() { # put_mmcv WHEEL: install it and see whether its operators run
  pip install --no-deps --force-reinstall "$1" && mmcv_works
}

keep_wheel() { # keep_wheel WHEEL: into the cache, complete or not at all
  local part
  part="$WHEELS/$WHEEL_KEY/.part.$$"
  if mkdir -p "$WHEELS/$WHEEL_KEY" 2>/dev/null && cp -- "$1" "$part" 2>/dev/null; then
    mv -f -- "$part" "$WHEELS/$WHEEL_KEY/$(basename -- "$1")"
  else
    rm -f -- "$part" 2>/dev/null || true
    say "(the wheel could not be kept below $WHEELS)"
  fi
}

jobs_for_memory() { # as many compilers as there are cores, with 2 GB for each
  local cores kb=0 limit
  cores="$("$PY" -c 'import os; print(len(os.sched_getaffinity(0)))' 2>/dev/null \
    || getconf _NPROCESSORS_ONLN || echo 1)"
  if [[ -r /proc/meminfo ]]; then
    kb="$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo)"
    if [[ -r /sys/fs/cgroup/memory.max ]]; then # a container's own limit
      limit="$(cat /sys/fs/cgroup/memory.max)"
      if [[ "$limit" != max ]] && ((limit / 1024 < kb)); then kb=$((limit / 1024)); fi
    fi
  fi
  if ((kb > 0 && kb / 2000000 < cores)); then cores=$((kb / 2000000)); fi
  echo $((cores > 1 ? cores : 1))
}

build_mmcv() { # build_mmcv NAME VERSION: make the wheel in $WORK/wheel
  local name="$1" version="$2" cxx="${CXX:-g++}" tools="$WORK/tools" fast=no need=(ninja) jobs
  if [[ "$(uname -s)" == Darwin ]]; then cxx="${CXX:-clang++}"; fi
  if ! command -v -- "$cxx" >/dev/null; then
    die "mmcv must be built for this PyTorch, and there is no C++ compiler ($cxx)." \
      'Debian, Ubuntu:  sudo apt-get install g++ python3-dev' \
      'Fedora, RHEL:    sudo dnf install gcc-c++ python3-devel' \
      'macOS:           xcode-select --install' \
      'conda:           conda install -c conda-forge gxx && export CXX="$CONDA_PREFIX/bin/g++"' \
      'or use a PyTorch for which OpenMMLab has a wheel:  TORCH_SPEC="torch==2.1.2"'
  fi
  if ! check python_header; then
    die "mmcv must be built for this PyTorch, and $PY has no Python.h." \
      'Debian, Ubuntu:  sudo apt-get install python3-dev' \
      'Fedora, RHEL:    sudo dnf install python3-devel' \
      'or make .venv with a python that has it:  PYTHON=/path/to/python3'
  fi

  # What only the build needs goes into a scratch folder, not the environment.
  if ! "$PY" -c 'import pkg_resources' 2>/dev/null; then need+=('setuptools<81' wheel); fi
  pip install --target "$tools" "${need[@]}" || failed "${need[*]}"

  jobs="${MAX_JOBS:-$(jobs_for_memory)}"
  local build=(env MMCV_WITH_OPS=1 MAX_JOBS="$jobs" PATH="$tools/bin:$PATH"
    PYTHONPATH="$tools${PYTHONPATH:+:$PYTHONPATH}")
  # (pip's own cache of built wheels does not ask which PyTorch they are for.)
  local what=("$PY" -m pip --disable-pip-version-check --no-input wheel --no-cache-dir
    --no-build-isolation --no-deps --no-binary "$name" -w "$WORK/wheel" "$name==$version")

  if [[ "$TORCH_CUDA" == yes && "$TORCH_NVCC" == yes ]]; then
    say "building $name $version for CUDA, $jobs jobs (15 to 40 minutes, this once)"
  else
    if [[ "$TORCH_CUDA" == yes ]]; then
      say "WARNING: there is a GPU, but no CUDA toolkit (nvcc): mmcv is built for the CPU,"
      say "  and detectors will not run on the GPU. Better: stop this, install the toolkit of"
      say "  PyTorch's CUDA version, set CUDA_HOME, and run again; or take a PyTorch for which"
      say "  OpenMMLab has a wheel, e.g. TORCH_SPEC='torch==2.1.2' in a new environment."
      build+=(CUDA_VISIBLE_DEVICES=)
    fi
    if "$cxx" --version 2>/dev/null | grep -q 'Free Software Foundation'; then fast=yes; fi
  fi

  if [[ "$fast" == yes ]]; then
    say "building $name $version with $jobs jobs (2.5 minutes on two cores, this once)"
    mkdir -p "$WORK/bin" "$WORK/pch"
    # torch looks at the compiler's file name, and ninja splits at spaces.
    cp -- "$ROOT/tools/setup/cxx_pch.sh" "$WORK/bin/g++"
    chmod +x "$WORK/bin/g++"
    if "${build[@]}" CXX="$WORK/bin/g++" REAL_CXX="$(command -v -- "$cxx")" \
      PCH_DIR="$WORK/pch" "${what[@]}" >"$WORK/log" 2>&1; then
      rm -rf "$WORK/pch"
      return
    fi
    rm -rf "$WORK/pch"
    tail -n 5 "$WORK/log" >&2
    say 'the quick build failed: trying the plain one'
  fi
  if [[ "$TORCH_NVCC" == no ]]; then
    say "building $name $version with $jobs jobs (20 minutes on two cores, this once)"
  fi
  if ! "${build[@]}" "${what[@]}" >"$WORK/log" 2>&1; then
    grep -m 5 -E 'error:|Error' "$WORK/log" >&2 || true
    tail -n 20 "$WORK/log" >&2
    die "$name $version could not be built; the compiler's last words are above." \
      "Or use a PyTorch for which OpenMMLab has a wheel: TORCH_SPEC='torch==2.1.2'" \
      'in a new environment (no compiler needed).'
  fi
}

install_mmcv() {
  local spec name version wheel
  if mmcv_works; then return; fi
  if check is_present mmcv && ! check is_own; then
    tail -n 5 "$WORK/mmcv.log" >&2
    die "mmcv is installed in $WHERE, but its compiled operators do not run (above)." \
      'It was built for another PyTorch, or without operators. Remove it,' \
      "    $PY -m pip uninstall mmcv mmcv-lite mmcv-full onedl-mmcv" \
      'and run again: a fitting one is then installed.'
  fi
  spec="$(check mmcv_spec)"
  name="${spec%%==*}" version="${spec#*==}"
  local WHEEL_KEY TORCH_CUDA TORCH_NVCC MMCV_INDEX facts
  facts="$(check torch_facts)"
  eval "$facts"

  for wheel in "$WHEELS/$WHEEL_KEY/${name//-/_}-$version"-*.whl; do
    [[ -e "$wheel" ]] || continue
    say "installing $name $version from $WHEELS, built earlier (5 seconds)"
    if put_mmcv "$wheel"; then return; fi
    say 'it does not run here: putting it away'
    rm -f -- "$wheel"
  done

  mkdir -p "$WORK/wheel"
  if [[ -n "$MMCV_INDEX" ]]; then
    say "asking OpenMMLab for a ready wheel of $name $version (10 seconds)"
    if pip download --no-deps --only-binary :all: --no-index --timeout 15 --retries 1 \
      --find-links "$MMCV_INDEX" -d "$WORK/wheel" "$name==$version"; then
      for wheel in "$WORK"/wheel/*mmcv-*.whl; do
        if put_mmcv "$wheel"; then
          keep_wheel "$wheel"
          return
        fi
      done
    fi
    rm -f -- "$WORK"/wheel/*.whl
    say 'there is none that runs here'
  fi

  build_mmcv "$name" "$version"
  for wheel in "$WORK"/wheel/*mmcv-*.whl; do
    put_mmcv "$wheel" || {
      tail -n 5 "$WORK/mmcv.log" >&2
      die 'mmcv was built, but its operators do not run (above).'
    }
    keep_wheel "$wheel"
  done
}

# ------------------------------------------------------------ mmengine, mmdet

install_mm() { # without their dependencies, which are installed before them
  local group=() line name
  while IFS= read -r line; do
    [[ -n "$line" ]] || continue
    name="${line%%==*}"
    group+=("$name==$(check tested "$name")")
  done < <(check missing mm && check broken mm)
  if ((${#group[@]} == 0)); then return; fi
  say "installing ${group[*]} (10 seconds)"
  pip install --no-deps --force-reinstall --ignore-installed "${group[@]}" || failed "${group[*]}"
}

install_this() {
  say 'installing mmdet_consistent as a link to this checkout (5 seconds)'
  # An old setuptools cannot make such links; pip then fetches a newer one aside.
  pip install --no-deps --no-build-isolation -e "$ROOT" \
    || pip install --no-deps -e "$ROOT" || failed mmdet_consistent
}

# ------------------------------------------------------------ the work

finish() {
  say "$1"
  if [[ "$PRINT" == yes ]]; then printf '%s\n' "$PY" >&3; fi
  exit 0
}

choose_environment
if [[ -x "$PY" ]] && facts="$(check fast 2>/dev/null)"; then
  finish "ready: $facts ($PY)"
fi

# One set-up of this checkout at a time; a second one waits and finds all done.
if command -v flock >/dev/null && exec 9<"$CHECK" && ! flock -n 9 2>/dev/null; then
  say 'another set-up of this checkout is running: waiting for it'
  flock 9 2>/dev/null || true # (a file system without locks: go on)
  if [[ -x "$PY" ]] && facts="$(check fast 2>/dev/null)"; then
    finish "ready: $facts ($PY)"
  fi
fi

WORK="$(mktemp -d "${TMPDIR:-/tmp}/mmdet_consistent-setup.XXXXXX")"
say "setting up in $WHERE"
if [[ "$PY" == "$ROOT/.venv/bin/python" ]]; then make_venv; fi
ensure_pip
check conflicts >&2 || exit 1
# A new environment gets the versions that were tested (tools/setup/tested.txt).
TESTED=no
if [[ -z "${TORCH_SPEC:-}" ]] && check is_fresh; then TESTED=yes; fi

setuptools="$(setuptools_version)"
install_group tools '5 seconds'
install_torch
if [[ -n "$setuptools" && "$setuptools" != "$(setuptools_version)" ]]; then
  say "setuptools was $setuptools and is now $(setuptools_version), for PyTorch or mmengine"
fi
install_group base '30 seconds'
install_mm # before mmcv, which imports mmengine
install_mmcv
install_group dev '10 seconds'
install_this

say 'importing everything (10 seconds)'
if ! check verify >"$WORK/log" 2>&1; then
  tail -n 15 "$WORK/log" >&2
  if check is_own; then
    die 'all is installed, but it does not work together (above).' \
      "Start anew:  rm -rf '$ROOT/.venv'  and run again."
  fi
  die "all is installed, but it does not work together in $WHERE (above)." \
    'Leave it (deactivate, or conda deactivate) and run again: the project then' \
    'makes a .venv of its own, with the versions that were tested.'
fi
sed 's/^/setup:   /' "$WORK/log"
check stamp
finish "ready: $PY"
