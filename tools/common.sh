# Sourced by the tools. Gives ROOT, VENV, JOBS and the functions below; a tool's leading comment is its --help.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${LOHE_VENV:-$ROOT/.venv}"
JOBS="${LOHE_JOBS:-$(nproc)}"
export CCACHE_DIR="${CCACHE_DIR:-$HOME/.cache/ccache}"
export PIP_DISABLE_PIP_VERSION_CHECK=1
# A build directory is part of every debug path; ccache must not miss because a checkout stands elsewhere.
export CCACHE_BASEDIR="${CCACHE_BASEDIR:-$ROOT}" CCACHE_NOHASHDIR=1

say() { printf '== %s\n' "$*" >&2; }
fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# Prints the comment block under the first line of the calling script.
show_help() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p;}' "$0"; }
help_wanted() { case "${1:-}" in -h | --help) show_help; exit 0 ;; esac; }

# Makes sure that the environment exists and that its programs are found first.
use_environment() {
  "$ROOT/tools/setup" --quiet
  export PATH="$VENV/bin:$PATH" VIRTUAL_ENV="$VENV"
}

# configure_and_build PRESET [TARGET...]
configure_and_build() {
  local preset="$1"
  shift
  use_environment
  cd "$ROOT"
  cmake --preset "$preset" >"$ROOT/build/.$preset.configure.log" 2>&1 || {
    cat "$ROOT/build/.$preset.configure.log" >&2
    fail "configuring '$preset' failed"
  }
  cmake --build "build/$preset" -j "$JOBS" ${1:+--target "$@"}
}

# What a Python program that uses the build needs.
use_build() {
  export PYTHONPATH="$ROOT/build/$1/python${PYTHONPATH:+:$PYTHONPATH}"
  # These two variables halve the speed of NumPy's OpenBLAS where a machine sets them.
  unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
}
