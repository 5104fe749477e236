"""Facts about this machine, and what it can do at its best."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch

import prsr
from benchmarks.bounds import Limits
from prsr.engines.cpu import chosen_instruction_set

ATTEMPTS = 6
"""A peak is the best of so many measurements: a neighbour's work makes it lower, never higher."""


def limits(working_set: int, threads: int) -> Limits:
    """Measured in about a second, with the instruction set that the engine uses.

    Args:
        working_set: bytes that all threads together read over and over.
        threads: that work at the same time.
    """
    bench = import_module("prsr._bench")
    name = chosen_instruction_set()
    return Limits(
        peak=best(lambda: bench.fma_peak(name, threads)),
        bandwidth=best(lambda: bench.read_bandwidth(name, working_set, threads)),
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
    }


def processor() -> str:
    """Its maker's name for it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class OtherWork:
    """How much of all cores' time others take: processes, and the host of a virtual machine.

    What waits for threads, as PyTorch does all the time, suffers from it far more than its share.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.others = others_seconds()

    def share(self) -> float:
        """Since this was made, from 0 to 1; children count as others until they were waited for."""
        cores = (time.perf_counter() - self.start) * (os.cpu_count() or 1)
        return max(0.0, (others_seconds() - self.others) / cores)


def others_seconds() -> float:
    """Seconds of the cores that others have had so far, on Linux; elsewhere always 0."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    # user, nice, system, idle, waiting, interrupts, soft interrupts, stolen by the host, …
    ticks = [int(word) for word in stat.read_text().split()[1:9]]
    used = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    return used - sum(os.times()[:4])


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
