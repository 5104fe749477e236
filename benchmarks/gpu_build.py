"""Install prsr with its compiled modules from this checkout into the Python that runs this.

    python -m benchmarks.gpu_build [--wheels FOLDER]

It uses the installed build tools, because the machine may have no network; if that fails, pip
downloads them. Missing packages come from the package index or, with ``--wheels``, only from that
folder. The exit code is 1 if the C++ module or, where there is ``nvcc``, the CUDA module was not
built; the others are installed nevertheless. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def install(options: list[str]) -> bool:
    """Install with pip; returns whether that succeeded."""
    pip = [sys.executable, "-m", "pip", "install", "--verbose", "--disable-pip-version-check"]
    command = [*pip, *options, "--editable", f"{CHECKOUT}[train]"]
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 0


def missing(module: str) -> str:
    """Why a module cannot be imported; empty if it can."""
    command = [sys.executable, "-c", f"import {module}"]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return run.stderr.strip().rpartition("\n")[2] if run.returncode else ""


def main() -> None:
    """Build, and check the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, help="install what is missing from this folder")
    wheels = parser.parse_args().wheels
    source = [] if wheels is None else ["--no-index", "--find-links", str(wheels)]
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    # If one module cannot be built, the other one is still needed.
    os.environ |= {
        "PRSR_BUILD_NATIVE": "auto",
        "PRSR_BUILD_BENCH": "auto",
        "PRSR_BUILD_CUDA": "auto" if nvcc else "0",
    }
    if not (install(["--no-build-isolation", *source]) or install(source)):
        sys.exit("prsr cannot be installed")
    modules = ["prsr.kernels", "prsr._native", *(["prsr._cuda"] if nvcc else [])]
    faults = {module: fault for module in modules if (fault := missing(module))}
    for module, fault in faults.items():
        print(f"not built: {module}: {fault}")
    if faults:
        sys.exit(1)
    print(f"built: {', '.join(modules)}")


if __name__ == "__main__":
    main()
