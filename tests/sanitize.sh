#!/usr/bin/env bash
# Builds the extensions with a sanitizer, once for the same sources, and runs tests with them: make
# sanitize.
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
# A copy of the package beside the one that is in use.
COPY=$PWD/build/sanitize/$1

# What the extensions are built from.
DIGEST=$({ "${CXX:-c++}" --version; "$PYTHON" -VV; cat setup.py CMakeLists.txt
  find csrc -type f -print0 | sort -z | xargs -0 cat; } | sha256sum)
if [ "$(cat "$COPY/digest" 2>/dev/null)" = "$DIGEST" ]; then
  # The extensions stay; the Python files are copied anew.
  find "$COPY/prsr" -name '*.py' -delete
  tar --create --exclude='*.so' --exclude=__pycache__ prsr | tar --extract --directory "$COPY"
  cp kernels/*.py "$COPY/prsr/kernels"
else
  rm -rf "$COPY"
  "$PYTHON" -m pip install --quiet --no-deps --target "$COPY" .
  echo "$DIGEST" > "$COPY/digest"
fi
# From here on prsr is that copy, for pytest as well as for the interpreters that tests start.
cd "$COPY"
export PYTHONPATH=$COPY

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
  -m "$MARKERS" "$SOURCE/tests"
