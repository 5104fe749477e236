"""The memory limit is that of the container, not of the machine."""

import os

import pytest
import torch

from prsr.utils.argument_checks import check_fits
from prsr.utils.memory import memory_limit

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def system(folder, groups, limits):
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(groups)
    for name, limit in limits.items():
        path = folder / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{limit}\n")
    return folder


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": 2**20}, 2**20),
        ("0::/\n", {"memory.max": "max"}, MACHINE),
        ("0::/\n", {"memory.max": 2**60}, MACHINE),
        ("0::/job/step\n", {"job/step/memory.max": "max", "job/memory.max": 2**21}, 2**21),
        ("0::/job/step\n", {"job/step/memory.max": 2**20, "job/memory.max": 2**21}, 2**20),
        ("0::/docker/0123\n", {"memory.max": 2**20}, 2**20),
        ("0::/a/../b\n", {"memory.max": 2**20}, 2**20),
        ("3:cpu,memory:/job\n", {"memory/job/memory.limit_in_bytes": 2**20}, 2**20),
        ("3:cpu:/job\n0::/\n", {"memory/job/memory.limit_in_bytes": 2**20}, MACHINE),
        ("3:memory:/\n", {"memory/memory.limit_in_bytes": 2**63 - 4096}, MACHINE),
        ("", {"memory.max": 2**20}, MACHINE),
    ],
)
def test_the_lowest_control_group_limit_applies(tmp_path, groups, limits, expected):
    assert memory_limit(system(tmp_path, groups, limits)) == expected


def test_without_control_groups_the_limit_is_the_machines_memory(tmp_path):
    assert memory_limit(tmp_path) == MACHINE


def test_work_must_fit_the_memory_of_the_container(tmp_path, monkeypatch):
    container = system(tmp_path, "0::/\n", {"memory.max": 2**30})
    monkeypatch.setattr("prsr.utils.argument_checks.memory_limit", lambda: memory_limit(container))
    check_fits(2**30, "logits", torch.device("cpu"))
    with pytest.raises(ValueError, match="logits would take 2 GiB, and cpu has 1 GiB"):
        check_fits(2**31, "logits", torch.device("cpu"))
