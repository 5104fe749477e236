"""Builds the C++ extension with CMake and ninja; everything else is in pyproject.toml.

Without a working compiler the installation goes on without the extension, with a warning:
`prsr.engines()` then says why the engine `cpu` is missing. `PRSR_BUILD_NATIVE=1` makes that an
error, `PRSR_BUILD_NATIVE=0` does not try.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
WANTED = os.environ.get("PRSR_BUILD_NATIVE", "auto")


class CMakeBuild(build_ext):
    """Configures and builds `CMakeLists.txt`, and puts the module where setuptools wants it."""

    def build_extension(self, ext: Extension) -> None:
        """Build, or warn that there will be no extension."""
        try:
            self.run_cmake(Path(self.get_ext_fullpath(ext.name)).resolve())
        except (OSError, subprocess.CalledProcessError) as error:
            if WANTED == "1":
                raise
            self.announce(f"prsr: no C++ engine, for it could not be built: {error}", level=4)

    def run_cmake(self, target: Path) -> None:
        """Leave the built module at `target`."""
        import pybind11

        build = Path(self.build_temp).resolve() / "cmake"
        configure = [
            *("cmake", f"-S{ROOT}", f"-B{build}", "-GNinja", "-DCMAKE_BUILD_TYPE=Release"),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(build / target.name, target)


if WANTED not in ("auto", "0", "1"):
    sys.exit(f"PRSR_BUILD_NATIVE must be auto, 0 or 1, got {WANTED!r}")
setup(
    # Optional: a module that was not built is no reason for setuptools to stop.
    ext_modules=[] if WANTED == "0" else [Extension("prsr._native", sources=[], optional=True)],
    cmdclass={"build_ext": CMakeBuild},
)
