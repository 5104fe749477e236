"""Environment variables for training that must be set before torch is loaded.

By default, glibc's malloc returns large blocks to the system as soon as they are freed, so that
every training step requests the same memory again and waits for the system to clear it; and waiting
OpenMP threads keep cores busy that other processes may need. The variables that change this are
read when a process or torch starts. ``prsr train`` therefore restarts itself with the missing ones.
This module must not import torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

TRAINING_COMMANDS = ("train", "experiment")

# Keep freed memory: never use mmap, whose threshold cannot exceed 32 MiB, and do not trim the heap.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**28),
}


def restart_with_training_environment() -> None:
    """Restart a ``prsr`` command that trains with the missing environment variables.

    The process is replaced by one with the same arguments. If that fails, it continues unchanged.
    """
    if not is_training_command(getattr(sys, "argv", []), sys.orig_argv):
        return
    missing = training_environment(os.environ)
    if not missing:
        return
    os.environ.update(missing)
    with suppress(OSError):  # training is then slower, with torch's default number of threads
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def is_training_command(argv: Sequence[str], orig_argv: Sequence[str]) -> bool:
    """Whether these are the arguments of a ``prsr`` command that trains.

    Args:
        argv: ``sys.argv``, which begins with ``-m`` while Python locates the module to run.
        orig_argv: ``sys.orig_argv``, which begins with Python and its options.
    """
    if len(argv) < 2 or argv[1] not in TRAINING_COMMANDS:
        return False
    if argv[0] == "-m":
        return ("-m", "prsr") in pairwise(orig_argv)
    return Path(argv[0]).name == "prsr"


def training_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables to add to an environment for training; empty without glibc.

    Variables that are set are not changed.
    """
    if not uses_glibc():
        return {}
    waiting = {"OMP_WAIT_POLICY": "passive"}
    wanted = {**MALLOC, **waiting, "OMP_NUM_THREADS": str(usable_cores())}
    if "GOMP_SPINCOUNT" in environment:
        del wanted["OMP_WAIT_POLICY"]  # this sets the same behaviour
    return {name: value for name, value in wanted.items() if name not in environment}


def uses_glibc() -> bool:
    """Whether the C library is glibc."""
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, OSError, ValueError):
        return False


def usable_cores(system: Path = Path("/sys")) -> int:
    """The number of physical cores that CPU affinity and the cgroup quota allow this process.

    Args:
        system: mount point of sysfs.
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
    except (OSError, ValueError):  # no file, or "max" if there is no quota
        pass
    return max(1, cores)
