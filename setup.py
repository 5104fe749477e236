"""Builds the extension modules with CMake and ninja; everything else is in pyproject.toml.

An environment variable says for each module whether to build it: 1 requires it, 0 skips it, and
``auto`` builds it if possible and otherwise warns (pip shows warnings with -v).

- ``PRSR_BUILD_NATIVE`` (default auto): ``prsr._native``, the engine ``cpu``; needs a C++ compiler.
- ``PRSR_BUILD_CUDA`` (default auto): ``prsr._cuda``, the engine ``cuda``; needs nvcc.
- ``PRSR_BUILD_BENCH`` (default 0): ``prsr._bench``, for this repository's benchmarks and tests.
  ``prsr._native`` then also has the instruction set ``amx-emulated``.

``PRSR_SANITIZE=address,undefined`` or ``thread`` builds with sanitizers, for `make sanitize`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
SWITCHES = {
    "prsr._native": ("PRSR_BUILD_NATIVE", "auto"),
    "prsr._cuda": ("PRSR_BUILD_CUDA", "auto"),
    "prsr._bench": ("PRSR_BUILD_BENCH", "0"),
}
WANTED = {name: os.environ.get(*switch) for name, switch in SWITCHES.items()}
# NVIDIA's default location is not on the PATH.
NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


class CMakeBuild(build_ext):
    """Builds each module as a target of `CMakeLists.txt`, where setuptools expects the result."""

    def build_extension(self, ext: Extension) -> None:
        """Build one module, or warn that it will be missing."""
        filename = self.get_ext_filename(ext.name)
        # A module left by an earlier build must not be taken for the result of this one.
        for folder in (self.build_lib, *([ROOT] if self.editable_mode else [])):
            Path(folder, filename).unlink(missing_ok=True)
        if WANTED[ext.name] == "0":
            return
        try:
            self.run_cmake(ext.name.rpartition(".")[2], Path(self.build_lib, filename))
        except (OSError, subprocess.CalledProcessError) as error:
            if WANTED[ext.name] == "1":
                raise
            self.warn(f"{ext.name} is left out because it could not be built: {error}")

    def run_cmake(self, module: str, target: Path) -> None:
        """Build a module and copy it to `target`."""
        import pybind11

        # Not in setuptools' build_temp: CMake's cache would keep paths to the ninja and pybind11 of
        # an isolated build environment, which no longer exists at the next build.
        with tempfile.TemporaryDirectory() as build:
            configure = [
                *("cmake", f"-S{ROOT}", f"-B{build}", "-GNinja", "-DCMAKE_BUILD_TYPE=Release"),
                f"-DPython_EXECUTABLE={sys.executable}",
                f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
                f"-DPRSR_SANITIZE={os.environ.get('PRSR_SANITIZE', '')}",
            ]
            if WANTED["prsr._bench"] != "0":
                configure.append("-DPRSR_EMULATED_AMX=ON")
            if module == "_cuda":
                configure += ["-DPRSR_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={NVCC or 'nvcc'}"]
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", build, "--target", module], check=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(build, target.name), target)


for name, wanted in WANTED.items():
    if wanted not in ("auto", "0", "1"):
        sys.exit(f"{SWITCHES[name][0]} must be auto, 0 or 1, got {wanted!r}")
if WANTED["prsr._cuda"] == "auto" and not NVCC:
    WANTED["prsr._cuda"] = "0"
setup(
    # Optional, so that setuptools accepts a module that was not built.
    ext_modules=[Extension(name, sources=[], optional=True) for name in WANTED],
    cmdclass={"build_ext": CMakeBuild},
)
