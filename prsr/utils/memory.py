"""The amount of memory that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

SYSTEM = Path("/")


def memory_limit(system: Path = SYSTEM) -> int:
    """The memory of the machine in bytes, or the limit of its container or job if that is lower.

    The limit is that of this process's control group and its parents: ``memory.max`` in version 2,
    ``memory.limit_in_bytes`` in version 1.

    Args:
        system: the root of the file system.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *group_limits(system)])


def group_limits(system: Path) -> list[int]:
    """The limits of this process's control groups in bytes; empty without control groups."""
    limits = []
    root = system / "sys/fs/cgroup"
    for line in read(system / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mount, file = root, "memory.max"
        elif "memory" in controllers.split(","):
            mount, file = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container, the path may be that of the host. Then only the root exists, which is the
        # container's own group.
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            limit = read(folder / file).strip()
            if limit.isdigit():
                limits.append(int(limit))
            if folder == mount:
                break
    return limits


def read(path: Path) -> str:
    """The text of a file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
