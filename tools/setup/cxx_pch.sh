#!/usr/bin/env bash
# A C++ compiler for one job: building mmcv's 77 operator files quickly.
#
# Nearly all of a plain build (about 20 minutes on two cores) goes into parsing
# PyTorch's headers 77 times. This wrapper has g++ parse them once, into a
# precompiled header, and then hands that to every compile: about 2.5 minutes.
#
# Use:  CXX=<this file> PCH_DIR=<an empty scratch folder> pip wheel ... mmcv
#
#   PCH_DIR   where the precompiled header lies; belongs to one build.
#   REAL_CXX  the compiler behind the wrapper (default: g++).
#
# A call that compiles nothing (linking, --version) is passed on untouched. When
# the header cannot be precompiled, every call is passed on untouched too: the
# build is then slow, but right.
set -euo pipefail

real="${REAL_CXX:-g++}"

compiles=no
for arg in "$@"; do
  if [[ "$arg" == -c ]]; then compiles=yes; fi
done
if [[ "$compiles" == no || -z "${PCH_DIR:-}" ]]; then
  exec "$real" "$@"
fi

header="$PCH_DIR/pre.h"

make_header() {
  # The flags must be those of the real compiles, or g++ ignores the header:
  # take this call's own, less what names its input and its outputs.
  local flags=() skip=no arg
  for arg in "$@"; do
    if [[ "$skip" == yes ]]; then
      skip=no
      continue
    fi
    case "$arg" in
      -o | -MF | -MT | -MQ) skip=yes ;;
      -c | -MMD | -MD | *.cpp | *.cc | *.cxx) ;;
      *) flags+=("$arg") ;;
    esac
  done
  # torch/types.h and no more: torch/extension.h would make a header of 760 MB
  # and a slower build.
  printf '#include <torch/types.h>\n#include <vector>\n' >"$header"
  "$real" "${flags[@]}" -g0 -x c++-header "$header" -o "$header.gch.part" \
    && mv "$header.gch.part" "$header.gch"
}

# The first compile makes the header; the others wait for it at the lock.
if [[ ! -e "$PCH_DIR/ready" && ! -e "$PCH_DIR/failed" ]]; then
  (
    if command -v flock >/dev/null; then flock 9; fi
    if [[ ! -e "$PCH_DIR/ready" && ! -e "$PCH_DIR/failed" ]]; then
      if make_header "$@"; then
        touch "$PCH_DIR/ready"
      else
        rm -f "$header" "$header.gch.part"
        touch "$PCH_DIR/failed"
      fi
    fi
  ) 9>"$PCH_DIR/lock"
fi

if [[ -e "$PCH_DIR/failed" ]]; then
  exec "$real" "$@"
fi
exec "$real" -include "$header" "$@" -g0
