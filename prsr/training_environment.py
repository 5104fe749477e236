"""What a training needs of its process before torch is loaded: allocator and threads.

glibc's malloc gives large blocks back to the system as soon as they are free, so that every step
asks for the same memory again and waits until the system has cleared it. And OpenMP's threads,
where they wait for each other, keep a core busy that another process may need. Both are decided by
environment variables that are read when a process or torch starts, so that ``prsr train`` starts
itself anew with those that are missing. Nothing here may import torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

TRAINING_COMMANDS = ("train", "experiment")

# Blocks above M_MMAP_THRESHOLD would be mapped one by one, and it cannot be more than 32 MiB: so no
# block is mapped, and the heap is not trimmed.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**28),
}


def start_anew_to_train() -> None:
    """If this process is a ``prsr`` command that trains, give it the environment that it needs.

    The process is replaced by one with the same arguments; where that is impossible, it goes on.
    """
    if not trains(getattr(sys, "argv", []), sys.orig_argv):
        return
    missing = training_environment(os.environ)
    if not missing:
        return
    os.environ.update(missing)
    with suppress(OSError):  # then it is slower, and has as many threads as torch takes by itself
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def trains(argv: Sequence[str], orig_argv: Sequence[str]) -> bool:
    """Whether these are the arguments of a ``prsr`` command that trains.

    Args:
        argv: ``sys.argv``, which begins with ``-m`` while Python looks for the module to run.
        orig_argv: ``sys.orig_argv``, which begins with Python and its own options.
    """
    if len(argv) < 2 or argv[1] not in TRAINING_COMMANDS:
        return False
    if argv[0] == "-m":
        return ("-m", "prsr") in pairwise(orig_argv)
    return Path(argv[0]).name == "prsr"


def training_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What is missing in an environment for training; empty where nothing can be gained.

    A variable that is set stays as it is.
    """
    if not glibc():
        return {}
    waiting = {"OMP_WAIT_POLICY": "passive"}
    wanted = {**MALLOC, **waiting, "OMP_NUM_THREADS": str(usable_cores())}
    if "GOMP_SPINCOUNT" in environment:
        del wanted["OMP_WAIT_POLICY"]  # the same said in another way
    return {name: value for name, value in wanted.items() if name not in environment}


def glibc() -> bool:
    """Whether this is Linux with the C library whose malloc is meant."""
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, OSError, ValueError):
        return False


def usable_cores(system: Path = Path("/sys")) -> int:
    """Cores that this process may use: by affinity, without hyper-threads, and by cgroup's quota.

    Args:
        system: where the kernel describes them.
    """
    processors = os.sched_getaffinity(0)
    try:
        topology = "devices/system/cpu/cpu{}/topology/thread_siblings_list"
        cores = len({(system / topology.format(p)).read_text() for p in processors})
    except OSError:
        cores = len(processors)
    try:
        quota, period = map(int, (system / "fs/cgroup/cpu.max").read_text().split())
        cores = min(cores, -(-quota // period))
    except (OSError, ValueError):  # no file, or "max" for no quota
        pass
    return max(1, cores)
