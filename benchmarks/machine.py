"""Facts about this machine, and what it can do at its best."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch

import prsr
from benchmarks.bounds import Limits
from prsr.engines.native import chosen_instruction_set

ATTEMPTS = 6
"""A peak is the best of so many measurements: a neighbour's work makes it lower, never higher."""


def limits(working_set: int, threads: int) -> Limits:
    """Measured in about a second, with the instruction set that the engine uses.

    Args:
        working_set: bytes that all threads together read over and over.
        threads: that work at the same time.
    """
    native = import_module("prsr._native")
    name = chosen_instruction_set()
    return Limits(
        peak=best(lambda: native.fma_peak(name, threads)),
        bandwidth=best(lambda: native.read_bandwidth(name, working_set, threads)),
    )


def best(measure: Callable[[], float]) -> float:
    """The largest of several measurements."""
    return max(measure() for _ in range(ATTEMPTS))


def facts() -> dict[str, str]:
    """Processor, versions and commit, by name."""
    return {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "threads": str(torch.get_num_threads()),
        "instruction set": chosen_instruction_set(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "versions": f"prsr {prsr.__version__}, torch {torch.__version__}, "
        f"python {platform.python_version()}",
        "commit": commit(),
        "load": f"{os.getloadavg()[0]:.1f} before the start; other work slows what waits for "
        "threads most",
    }


def processor() -> str:
    """Its maker's name for it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """Of the repository that this file is in, and whether it has changed since."""
    describe = ("git", "describe", "--always", "--dirty")
    folder = Path(__file__).parent
    try:
        return subprocess.run(
            describe, cwd=folder, check=True, capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
