# `make demo` and `make test` need nothing but Python 3.10 or newer: they set up .venv themselves.
# `make gpu` and `make gpu-all` use the torch that PYTHON has.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The source of pip if Python cannot create a virtual environment with it.
PIP_ZIP ?= https://bootstrap.pypa.io/pip/pip.pyz
# The extensions are rebuilt when one of these changes.
SOURCES := pyproject.toml constraints.txt setup.py CMakeLists.txt $(wildcard csrc/*/*.*)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs nightly gpu gpu-all gpu-wheels check-install sanitize clean

help:
	@echo "make demo   sample the bundled 8x8 inputs at 32x32: demo.png"
	@echo "make test   run linters, type checks and tests"
	@echo "make lint   run linters, type checks and the check of import layers"
	@echo "make docs   build the documentation: docs/_build/index.html"
	@echo "make gpu    build, check and measure the GPU engines in 5 minutes: OUT=folder"
	@echo "make gpu-all  the same, then train: DATA=folder SECONDS=560 OUT=folder"
	@echo "make sanitize       run the C++ engine's tests under sanitizers"
	@echo "make nightly        try many damaged inputs, kills and invalid calls"
	@echo "make check-install  test every installation method in a fresh environment"
	@echo "make clean  remove the environment and caches"

demo: $(VENV)/.installed
	$(BIN)/prsr demo --out demo.png

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup
	@[ "$$(uname)" != Linux ] || ! $(BIN)/python -c 'import prsr._native' 2>/dev/null \
	  || $(MAKE) sanitize MARKERS='sanitize and quick'

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu \
	  tests/engines/*.h tests/engines/*.cpp
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# A warning, such as a link to nowhere, is an error.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -W --keep-going -q -E -b html docs docs/_build

# Both use the torch and Triton that PYTHON has; on a GPU machine, pip must not replace them.
# benchmarks/gpu_all.py explains the variables. LIMITS and SHARES hold one or several NAME=NUMBER.
OUT ?= runs/$@
GPU_ALL = $(PYTHON) -m benchmarks.gpu_all --out '$(OUT)' \
  $(if $(WHEELS),--wheels '$(WHEELS)') $(LIMITS:%=--limit %)
gpu:
	$(GPU_ALL) --seconds '$(or $(SECONDS),300)'

gpu-all:
	$(GPU_ALL) --seconds '$(SECONDS)' $(if $(DATA),--data '$(DATA)') \
	  $(if $(RESUME),--resume '$(RESUME)') $(if $(MACHINES),--machines '$(MACHINES)') \
	  $(SHARES:%=--share %)

# Downloads wheels of PACKAGES, without their dependencies, for a GPU machine without network
# (WHEELS=wheels).
PACKAGES ?= safetensors huggingface_hub pillow rich click typing_extensions tensorboard
GPU_PYTHON ?= 3.12
GPU_PLATFORMS := manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64
gpu-wheels:
	$(PYTHON) -m pip download --quiet --dest wheels --no-deps --only-binary :all: \
	  --python-version $(GPU_PYTHON) --implementation cp $(GPU_PLATFORMS:%=--platform %) $(PACKAGES)

# MARKERS selects tests, as pytest -m does; pyproject.toml lists the markers.
MARKERS ?= sanitize and not large
sanitize: $(VENV)/.installed-dev
	PYTHON=$(BIN)/python tests/sanitize.sh address,undefined '$(MARKERS)'
	PYTHON=$(BIN)/python tests/sanitize.sh thread '$(MARKERS)'

check-install: $(VENV)/.installed
	PYTHON=$(BIN)/python tests/install.sh

# Too slow for every push; CONTRIBUTING.md says what it tries.
nightly: $(VENV)/.installed-dev
	PRSR_FUZZ=10000 PRSR_KILLS=100 PRSR_HOSTILE=1000 $(BIN)/python -m pytest --numprocesses 2 \
	  -o faulthandler_timeout=0 \
	  tests/robustness/test_fuzz.py tests/robustness/test_hostile.py tests/robustness/test_kills.py

clean:
	rm -rf $(VENV) docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Debian's python3 cannot install pip into a virtual environment: try virtualenv, uv, and pip's own
# zip file.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "prsr needs Python 3.10 or newer; choose one with make PYTHON=..."; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) 2>/dev/null \
	  || { rm -rf $(VENV); $(PYTHON) -m virtualenv --quiet $(VENV) 2>/dev/null; } \
	  || uv venv --quiet --seed --python $(PYTHON) $(VENV) 2>/dev/null \
	  || { rm -rf $(VENV); $(PYTHON) -m venv --without-pip $(VENV) && $(BIN)/python -c \
	       'from urllib.request import urlretrieve as get; get("$(PIP_ZIP)", "$(VENV)/pip.pyz")' \
	       && $(BIN)/python $(VENV)/pip.pyz install --quiet pip; } 2>/dev/null \
	  || { rm -rf $(VENV); echo "cannot create a virtual environment: apt install python3-venv"; exit 1; }

# These files record when the environment was last installed.
$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	$(INSTALL) --editable .
	@touch $@

# prsr._bench, which benchmarks and tests use, is built for development only.
$(VENV)/.installed-dev: $(SOURCES) | $(BIN)/python
	PRSR_BUILD_BENCH=$${PRSR_BUILD_BENCH:-auto} $(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.installed
