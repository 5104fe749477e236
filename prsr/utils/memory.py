"""How much memory this process may use."""

from __future__ import annotations

import os
from pathlib import Path

SYSTEM = Path("/")


def memory_limit(system: Path = SYSTEM) -> int:
    """Bytes of the machine's memory, or of the container's or job's if that is less.

    Control groups limit it: of version 2 by ``memory.max`` of this process's group and of those
    above it, of version 1 by ``memory.limit_in_bytes``.

    Args:
        system: the root of the file system.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *group_limits(system)])


def group_limits(system: Path) -> list[int]:
    """The limits of this process's control groups, in bytes; none where there are no groups."""
    limits = []
    root = system / "sys/fs/cgroup"
    for line in read(system / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            place, file = root, "memory.max"
        elif "memory" in controllers.split(","):
            place, file = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        # Inside a container, the group may be named as it is called outside: then only the root,
        # which is the container's own group, is there.
        group = place / path.lstrip("/")
        for folder in (group, *group.parents):
            limit = read(folder / file).strip()
            if limit.isdigit():
                limits.append(int(limit))
            if folder == place:
                break
    return limits


def read(path: Path) -> str:
    """A file's text; empty if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
