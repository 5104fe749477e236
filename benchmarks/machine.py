"""A description of this machine and its peak rates."""

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
from prsr.engines.native import chosen_instruction_set

ATTEMPTS = 6
"""A limit is the best of this many measurements: other work can only make it worse."""


def limits(working_set: int, threads: int) -> Limits:
    """Measure the limits with the engine's instruction set, in about a second.

    Args:
        working_set: bytes that all threads together read repeatedly.
        threads: number of concurrent threads.
    """
    bench = import_module("prsr._bench")
    name = chosen_instruction_set()
    return Limits(
        peak=best(lambda: bench.fma_peak(name, threads)),
        bandwidth=best(lambda: bench.read_bandwidth(name, working_set, threads)),
    )


def round_trip() -> float:
    """Seconds that a message takes from a thread to another and back."""
    bench = import_module("prsr._bench")
    return min(bench.round_trip() for _ in range(ATTEMPTS))


def best(measure: Callable[[], float]) -> float:
    """The largest of several measurements."""
    return max(measure() for _ in range(ATTEMPTS))


def describe() -> dict[str, str]:
    """Processor, versions and commit, by heading."""
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
    """The model name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


DISTURBED = 0.03
"""The share of the cores' time, used by other work, above which a measurement is disturbed."""


class OtherWork:
    """The share of all cores' time used by other processes and the host of a virtual machine.

    Code that often waits for its threads, as PyTorch does, is slowed down by more than this share.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.others = others_seconds()

    def share(self) -> float:
        """The share since construction, 0 to 1; children count as others until they are reaped."""
        cores = (time.perf_counter() - self.start) * (os.cpu_count() or 1)
        return max(0.0, (others_seconds() - self.others) / cores)


def others_seconds() -> float:
    """Core seconds used by others since boot, on Linux; 0 on other systems."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    # user, nice, system, idle, waiting, interrupts, soft interrupts, stolen by the host, …
    ticks = [int(word) for word in stat.read_text().split()[1:9]]
    used = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
    return used - sum(os.times()[:4])


def commit() -> str:
    """The commit of this repository, and whether there are uncommitted changes."""
    describe = ("git", "describe", "--always", "--dirty")
    folder = Path(__file__).parent
    try:
        return subprocess.run(
            describe, cwd=folder, check=True, capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
