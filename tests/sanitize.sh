#!/usr/bin/env bash
# Builds the C++ extensions with sanitizers and runs the sampling tests on them: make sanitize.
#
#   tests/sanitize.sh address,undefined|thread MARKERS
#
# MARKERS selects tests, as pytest -m takes it.
set -euo pipefail
cd "$(dirname "$0")/.."
export PRSR_SANITIZE=$1 PRSR_BUILD_NATIVE=1 PRSR_BUILD_BENCH=1 PRSR_BUILD_CUDA=0
MARKERS=$2
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
SOURCE=$PWD
TARGET=$PWD/build/sanitize/$1

# A separate copy of the package.
rm -rf "$TARGET"
"$PYTHON" -m pip install --quiet --no-deps --target "$TARGET" .
# From here on prsr is that copy, in pytest and in the interpreters that tests start.
cd "$TARGET"
export PYTHONPATH=$TARGET

# Python is not built with sanitizers, so their runtime must be loaded first. So must the C++ library:
# AddressSanitizer intercepts its exceptions only if it is already loaded.
find_library() { "${CXX:-c++}" -print-file-name="$1"; }
case $PRSR_SANITIZE in
  thread) LD_PRELOAD=$(find_library libtsan.so) ;;
  *) LD_PRELOAD="$(find_library libasan.so) $(find_library libstdc++.so)" ;;
esac
export LD_PRELOAD
# Memory that Python and torch keep until the end is not a leak of ours.
export ASAN_OPTIONS=detect_leaks=0
export UBSAN_OPTIONS=print_stacktrace=1
# Instead of a list of suppressions. Torch, OpenMP and Python are not instrumented: ThreadSanitizer
# sees their memory accesses but not their synchronisation, and would report races. Only our own code
# is checked. A child of fork starts threads, which ThreadSanitizer does not support; it need not end
# the process for that.
export TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1:die_after_fork=0
# Output is not captured: a finding ends the process, and pytest with all captured output. There is no
# time limit: a test takes many times as long here.
export PYTEST_ADDOPTS="--capture=sys --override-ini=faulthandler_timeout=0"
exec "$PYTHON" -m pytest --config-file="$SOURCE/pyproject.toml" --rootdir="$SOURCE" \
  -m "$MARKERS" "$SOURCE"/tests/engines/test_{cpu,cpu_conditioning,cpu_loops,cpu_operator,engines}.py \
  "$SOURCE"/tests/sampling/test_sampler.py
