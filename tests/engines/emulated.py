"""The engine ``cuda`` with kernels emulated on the CPU: ``emulation.h`` replaces a GPU."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from prsr.engines import cuda
from prsr.engines.cuda_plan import Plan

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCES = (*sorted((ROOT / "csrc/cuda").glob("*.*")), *sorted(HERE.glob("emulat*")))

EMULATION = [
    pytest.mark.xdist_group("emulation"),  # in one process, so that one compiles the emulation
    pytest.mark.skipif(
        os.uname().machine != "x86_64" or not shutil.which(os.environ.get("CXX", "c++")),
        reason="the emulation takes x86-64 and a C++ compiler",
    ),
]
"""The marks of tests that build the emulation."""


def build(*flags: str, kernels: Path = ROOT / "csrc/cuda") -> Path:
    """Compile the emulated extension, unless a build of the same sources exists.

    Args:
        flags: additional flags of the compiler.
        kernels: the folder of the sources.

    Raises:
        subprocess.CalledProcessError: the sources do not compile.
    """
    torch_headers = Path(torch.__file__).parent / "include"  # includes pybind11
    command = [
        *(os.environ.get("CXX", "c++"), "-std=c++17", "-shared", "-fPIC", "-O2"),
        # Memory is read as integers and as floats, as on the GPU.
        *("-fno-strict-aliasing", "-ffp-contract=fast", "-Wall", "-Wextra", "-Wno-unknown-pragmas"),
        "-Wno-array-bounds",  # GCC 12 warns wrongly about references to rows of an array
        *flags,
        *(f"-I{kernels}", f"-I{HERE}", f"-isystem{torch_headers}"),
        *(f"-isystem{sysconfig.get_path('include')}", str(HERE / "emulated_cuda.cpp")),
    ]
    digest = hashlib.sha256("\0".join(command).encode())
    for file in (*sorted(kernels.glob("*.*")), *SOURCES):
        digest.update(file.read_bytes())
    folder = ROOT / "build/emulation" / digest.hexdigest()[:16]
    target = folder / "_cuda.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{os.getpid()}.so"
        subprocess.run([*command, "-o", str(unfinished)], check=True)
        unfinished.replace(target)
    return target


def load(path: Path) -> ModuleType:
    """Load the module in a file, as :mod:`prsr.engines.cuda` imports its own."""
    spec = importlib.util.spec_from_file_location("_cuda", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def poisoned(state: cuda.State, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Memory full of NaN, so that a read before the first write shows."""
    return torch.full(shape, torch.nan, dtype=dtype)


@contextlib.contextmanager
def emulated(module: ModuleType, plan: Plan | None = None) -> Iterator[None]:
    """The engine serves on the CPU, by ``module``, and divides jobs as the plan says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "_cuda", module)
        patch.setattr(cuda, "stream_of", lambda device: 0)
        patch.setattr(cuda.CUDAEngine, "reasons", lambda *call: [])
        patch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
        patch.setattr(cuda.State, "scratch", poisoned)
        if plan is not None:
            patch.setattr(cuda.Planner, "plan", lambda *job: plan)
        yield
