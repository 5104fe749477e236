"""Builds the extensions with CMake and ninja; everything else is in pyproject.toml.

`prsr._native`, the C++ engine, wants a C++ compiler, `prsr._cuda` nvcc as well. What cannot be
built is left out with a warning, which pip shows with -v, and `prsr.list_engines()` says what is
missing. `PRSR_BUILD_NATIVE=1` and `PRSR_BUILD_CUDA=1` make a failure an error, 0 does not try.
`PRSR_SANITIZE=address,undefined` or `thread` builds what `make sanitize` tests.
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
SWITCHES = {"prsr._native": "PRSR_BUILD_NATIVE", "prsr._cuda": "PRSR_BUILD_CUDA"}
WANTED = {name: os.environ.get(switch, "auto") for name, switch in SWITCHES.items()}
# Where NVIDIA installs it, it is not on the PATH.
NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


class CMakeBuild(build_ext):
    """Builds each module as a target of `CMakeLists.txt`, and puts it where setuptools wants it."""

    def build_extension(self, ext: Extension) -> None:
        """Build, or warn that this module will be missing."""
        filename = self.get_ext_filename(ext.name)
        # What an earlier build left here must not pass for this one's.
        for folder in (self.build_lib, *([ROOT] if self.editable_mode else [])):
            Path(folder, filename).unlink(missing_ok=True)
        if WANTED[ext.name] == "0":
            return
        try:
            self.run_cmake(ext.name.rpartition(".")[2], Path(self.build_lib, filename))
        except (OSError, subprocess.CalledProcessError) as error:
            if WANTED[ext.name] == "1":
                raise
            self.warn(f"{ext.name} is left out, for it could not be built: {error}")

    def run_cmake(self, module: str, target: Path) -> None:
        """Leave the built module at `target`."""
        import pybind11

        # Not in setuptools' build_temp: CMake would remember there the ninja and the pybind11 of
        # an isolated environment that is gone by the next build.
        with tempfile.TemporaryDirectory() as build:
            configure = [
                *("cmake", f"-S{ROOT}", f"-B{build}", "-GNinja", "-DCMAKE_BUILD_TYPE=Release"),
                f"-DPython_EXECUTABLE={sys.executable}",
                f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
                f"-DPRSR_SANITIZE={os.environ.get('PRSR_SANITIZE', '')}",
            ]
            if module == "_cuda":
                configure += ["-DPRSR_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={NVCC or 'nvcc'}"]
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", build, "--target", module], check=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(build, target.name), target)


for name, wanted in WANTED.items():
    if wanted not in ("auto", "0", "1"):
        sys.exit(f"{SWITCHES[name]} must be auto, 0 or 1, got {wanted!r}")
if WANTED["prsr._cuda"] == "auto" and not NVCC:
    WANTED["prsr._cuda"] = "0"
setup(
    # Optional: a module that was not built is no reason for setuptools to stop.
    ext_modules=[Extension(name, sources=[], optional=True) for name in WANTED],
    cmdclass={"build_ext": CMakeBuild},
)
