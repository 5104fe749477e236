#!/usr/bin/env bash
# Installs prsr as users do, each time into a fresh environment and built in isolation, and draws a
# image from outside the source folder: make check-install.
#
# The environments see the packages of the one that $PYTHON belongs to, so that none fetches torch
# anew; prsr itself comes from what was installed, for it comes first.
set -euo pipefail
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
cd "$(dirname "$0")/.."
ROOM=$(mktemp -d)
trap 'rm -rf "$ROOM"' EXIT
export PRSR_BUILD_NATIVE=auto PRSR_BUILD_CUDA=0

# What is tracked, and nothing that was built here.
mkdir "$ROOM/source" "$ROOM/elsewhere"
git ls-files -z | tar --create --null --files-from - | tar --extract --directory "$ROOM/source"

# environment NAME: a fresh one.
environment() {
  echo "== $1"
  "$PYTHON" -m venv --without-pip "$ROOM/$1"
  "$PYTHON" -c 'import site; print(*site.getsitepackages(), sep="\n")' \
    > "$("$ROOM/$1/bin/python" -c 'import site; print(site.getsitepackages()[0])')/shared.pth"
}

# install NAME ARGUMENT…: with pip, into that environment; the log is kept.
install() {
  local name=$1
  shift
  "$PYTHON" -m pip --python "$ROOM/$name/bin/python" install --verbose --no-deps "$@" \
    > "$ROOM/$name.log" 2>&1 || { cat "$ROOM/$name.log"; return 1; }
}

# draws NAME ENGINE FOLDER: an image, with that engine, in a package from that folder.
draws() {
  (cd "$ROOM/elsewhere" && "$ROOM/$1/bin/python" - "$2" "$ROOM/$3") <<'PYTHON'
import sys, numpy, prsr
_, engine, folder = sys.argv
assert prsr.__file__.startswith(folder + "/"), prsr.__file__
reasons = prsr.list_engines()["cpu"]
if engine == "cpu":
    assert reasons == [], reasons
else:
    assert "not built" in reasons[0] and "C++ compiler" in reasons[0], reasons
image = prsr.sample(numpy.zeros((1, 3, 8, 8), numpy.uint8), engine=engine, seed=1)
assert image.shape == (1, 3, 32, 32)
PYTHON
}

# refused NAME TEXT: an installation that must fail, and say so.
refused() {
  if (install "$1" "$ROOM/source") > "$ROOM/said" 2>&1; then
    echo "was installed all the same"
    return 1
  fi
  grep -e "$2" "$ROOM/said"
}

environment plain
install plain "$ROOM/source"
draws plain cpu plain
install plain "$ROOM/source"  # once more, from a folder that was built in
draws plain cpu plain

environment sdist
"$PYTHON" -m venv "$ROOM/tool"
"$ROOM/tool/bin/python" -m pip install --quiet build
"$ROOM/tool/bin/python" -m build --sdist --outdir "$ROOM/sdist" "$ROOM/source" > "$ROOM/sdist.log" 2>&1
# All that is tracked is in it, but what begins with a dot: it can build and test itself.
diff <(git ls-files | grep -v '^\.' | sort) \
  <(tar --list --file "$ROOM"/sdist/*.tar.gz | sed 's|^[^/]*/||' \
    | grep -v -e '/$' -e '^$' -e egg-info -e PKG-INFO -e setup.cfg | sort)
"$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$ROOM/wheel" "$ROOM"/sdist/*.tar.gz
install sdist "$ROOM"/wheel/*.whl
draws sdist cpu sdist

environment editable
install editable --editable "$ROOM/source"
draws editable cpu source

echo "== what must fail"
export CXX=/nonexistent
PRSR_BUILD_NATIVE=1 refused editable /nonexistent
PRSR_BUILD_NATIVE=yes refused editable "PRSR_BUILD_NATIVE must be auto, 0 or 1, got 'yes'"
PRSR_BUILD_CUDA=yes refused editable "PRSR_BUILD_CUDA must be auto, 0 or 1, got 'yes'"
unset CXX
PRSR_BUILD_NATIVE=0 PRSR_BUILD_CUDA=1 CUDACXX=/nonexistent refused editable /nonexistent

environment no-nvcc
PRSR_BUILD_CUDA=auto CUDACXX=/nonexistent install no-nvcc "$ROOM/source"
grep -e "prsr._cuda is left out" "$ROOM/no-nvcc.log"
draws no-nvcc cpu no-nvcc

# Last, in the folder of the editable installation: what was built there before must be gone.
environment no-compiler
CXX=/nonexistent install no-compiler --editable "$ROOM/source"
grep -e "prsr._native is left out" "$ROOM/no-compiler.log"
draws no-compiler torch source
