#!/usr/bin/env bash
# Installs prsr as users do, each time into a fresh environment with an isolated build, and samples an
# image from outside the source folder: make check-install.
#
# The environments also see the packages of $PYTHON's environment, so that none downloads torch again;
# prsr itself comes from the fresh environment, which takes precedence.
set -euo pipefail
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
cd "$(dirname "$0")/.."
TEMP=$(mktemp -d)
trap 'rm -rf "$TEMP"' EXIT
export PRSR_BUILD_NATIVE=auto PRSR_BUILD_CUDA=0
unset PRSR_BUILD_BENCH

# Tracked files only, nothing that was built here.
mkdir "$TEMP/source" "$TEMP/elsewhere"
git ls-files -z | tar --create --null --files-from - | tar --extract --directory "$TEMP/source"

# environment NAME: creates a fresh environment.
environment() {
  echo "== $1"
  "$PYTHON" -m venv --without-pip "$TEMP/$1"
  "$PYTHON" -c 'import site; print(*site.getsitepackages(), sep="\n")' \
    > "$("$TEMP/$1/bin/python" -c 'import site; print(site.getsitepackages()[0])')/shared.pth"
}

# install NAME ARGUMENT…: pip install into that environment; keeps the log.
install() {
  local name=$1
  shift
  "$PYTHON" -m pip --python "$TEMP/$name/bin/python" install --verbose --no-deps "$@" \
    > "$TEMP/$name.log" 2>&1 || { cat "$TEMP/$name.log"; return 1; }
}

# draws NAME ENGINE FOLDER: samples an image with that engine; prsr must come from that folder.
draws() {
  (cd "$TEMP/elsewhere" && "$TEMP/$1/bin/python" - "$2" "$TEMP/$3") <<'PYTHON'
import sys, numpy, prsr
from importlib.util import find_spec
_, engine, folder = sys.argv
assert prsr.__file__.startswith(folder + "/"), prsr.__file__
# prsr._bench is for development only: no installation contains it unless asked to.
assert find_spec("prsr._bench") is None
reasons = prsr.list_engines()["cpu"]
if engine == "cpu":
    assert reasons == [], reasons
else:
    assert "not built" in reasons[0] and "C++ compiler" in reasons[0], reasons
image = prsr.sample(numpy.zeros((1, 3, 8, 8), numpy.uint8), engine=engine, seed=1)
assert image.shape == (1, 3, 32, 32)
PYTHON
}

# refused NAME TEXT: an installation that must fail with this text.
refused() {
  if (install "$1" "$TEMP/source") > "$TEMP/output" 2>&1; then
    echo "the installation should have failed"
    return 1
  fi
  grep -e "$2" "$TEMP/output"
}

environment plain
install plain "$TEMP/source"
draws plain cpu plain
install plain "$TEMP/source"  # again, from a folder with build results
draws plain cpu plain

environment sdist
"$PYTHON" -m venv "$TEMP/tool"
"$TEMP/tool/bin/python" -m pip install --quiet build
"$TEMP/tool/bin/python" -m build --sdist --outdir "$TEMP/sdist" "$TEMP/source" > "$TEMP/sdist.log" 2>&1
# It contains all tracked files except those that begin with a dot, so it can build and test itself.
diff <(git ls-files | grep -v '^\.' | sort) \
  <(tar --list --file "$TEMP"/sdist/*.tar.gz | sed 's|^[^/]*/||' \
    | grep -v -e '/$' -e '^$' -e egg-info -e PKG-INFO -e setup.cfg | sort)
"$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$TEMP/wheel" "$TEMP"/sdist/*.tar.gz
install sdist "$TEMP"/wheel/*.whl
draws sdist cpu sdist

environment editable
install editable --editable "$TEMP/source"
draws editable cpu source

echo "== installations that must fail"
export CXX=/nonexistent
PRSR_BUILD_NATIVE=1 refused editable /nonexistent
PRSR_BUILD_NATIVE=yes refused editable "PRSR_BUILD_NATIVE must be auto, 0 or 1, got 'yes'"
PRSR_BUILD_CUDA=yes refused editable "PRSR_BUILD_CUDA must be auto, 0 or 1, got 'yes'"
PRSR_BUILD_BENCH=yes refused editable "PRSR_BUILD_BENCH must be auto, 0 or 1, got 'yes'"
unset CXX
PRSR_BUILD_NATIVE=0 PRSR_BUILD_CUDA=1 CUDACXX=/nonexistent refused editable /nonexistent

environment no-nvcc
PRSR_BUILD_CUDA=auto CUDACXX=/nonexistent install no-nvcc "$TEMP/source"
grep -e "prsr._cuda is left out" "$TEMP/no-nvcc.log"
draws no-nvcc cpu no-nvcc

# Last, in the folder of the editable installation: the earlier build must be removed.
environment no-compiler
CXX=/nonexistent install no-compiler --editable "$TEMP/source"
grep -e "prsr._native is left out" "$TEMP/no-compiler.log"
draws no-compiler torch source
