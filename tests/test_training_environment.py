"""The environment variables of a training: which commands set them, and when."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prsr import training_environment as startup
from prsr.training_environment import (
    MALLOC,
    is_training_command,
    training_environment,
    usable_cores,
)

NAMES = (*MALLOC, "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")
SPY = """
import atexit, json, os, sys
def report():
    torch = sys.modules["torch"]
    names = {name: os.environ.get(name) for name in %r}
    with open(os.environ["REPORT"], "a") as file:
        file.write(json.dumps([os.getpid(), names, torch.get_num_threads()]) + "\\n")
if "REPORT" in os.environ:
    atexit.register(report)
"""
linux = pytest.mark.skipif(not startup.uses_glibc(), reason="only glibc has these settings")


def reported(folder, *command, **variables):
    """Run a command; PID, variables and thread count of each of its processes as they exit."""
    (folder / "sitecustomize.py").write_text(SPY % (NAMES,))
    report = folder / "report"
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    paths = {"PYTHONPATH": str(folder), "REPORT": str(report), "PATH": path}
    done = subprocess.run(
        command, env=clean | paths | variables, capture_output=True, text=True, check=True
    )
    assert "--optimizer" in done.stdout or "corners" in done.stdout or "--samples" in done.stdout
    return [json.loads(line) for line in report.read_text().splitlines()]


@linux
@pytest.mark.parametrize("start", [["prsr"], [sys.executable, "-m", "prsr"]])
@pytest.mark.parametrize("command", ["train", "experiment"])
def test_the_training_environment_is_set_before_torch_is_loaded(tmp_path, start, command):
    ((_, names, threads),) = reported(tmp_path, *start, command, "--help")
    cores = usable_cores()
    expected = {**MALLOC, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(cores)}
    assert names == expected | {"GOMP_SPINCOUNT": None}
    assert threads == cores


@linux
def test_variables_set_by_the_user_are_kept(tmp_path):
    own = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "7", "MALLOC_TOP_PAD_": "0"}
    ((_, names, threads),) = reported(tmp_path, "prsr", "train", "--help", **own)
    assert names == {**MALLOC, "OMP_WAIT_POLICY": None, **own}
    assert threads == 1


def test_other_commands_set_no_variables(tmp_path):
    ((_, names, _),) = reported(tmp_path, "prsr", "sample", "--help")
    assert set(names.values()) == {None}


@linux
def test_torchrun_keeps_its_processes_and_thread_count(tmp_path):
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    found = reported(tmp_path, *launch, "-m", "prsr", "train", "--help")
    workers = [(names, threads) for _, names, threads in found if names["OMP_WAIT_POLICY"]]
    # torchrun itself sets one thread for each of several processes.
    expected = {**MALLOC, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
    assert workers == [(expected | {"GOMP_SPINCOUNT": None}, 1)] * 2


@pytest.mark.parametrize(
    ("argv", "orig_argv", "expected"),
    [
        (["/bin/prsr", "train"], ["python", "/bin/prsr", "train"], True),
        (["/bin/prsr", "experiment", "corners"], ["python", "/bin/prsr", "experiment"], True),
        (["/bin/prsr", "sample", "train"], ["python", "/bin/prsr", "sample", "train"], False),
        (["/bin/prsr"], ["python", "/bin/prsr"], False),
        (["-m", "train"], ["python", "-u", "-m", "prsr", "train"], True),
        (["-m", "train"], ["python", "-m", "other", "train"], False),
        (["mine.py", "train"], ["python", "mine.py", "train"], False),
        (["/bin/pytest", "train"], ["python", "/bin/pytest", "train"], False),
        ([], [], False),
        (["-c"], ["python", "-c", "import prsr"], False),
    ],
)
def test_training_commands_are_recognised(argv, orig_argv, expected):
    assert is_training_command(argv, orig_argv) is expected


def test_without_glibc_nothing_is_set(monkeypatch):
    for answer in (lambda name: None, lambda name: (_ for _ in ()).throw(ValueError(name))):
        monkeypatch.setattr(os, "confstr", answer)
        assert training_environment({}) == {}
    monkeypatch.delattr(os, "confstr")
    assert training_environment({}) == {}


@linux
def test_training_continues_if_the_process_cannot_be_replaced(monkeypatch):
    tried = []

    def refused(path, arguments):
        tried.append((path, arguments, {name: os.environ.get(name) for name in MALLOC}))
        raise PermissionError(path)

    monkeypatch.setattr(os, "execv", refused)
    monkeypatch.setattr(sys, "argv", ["prsr", "train", "--steps", "1"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-O", "/bin/prsr", "train", "--steps", "1"])
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it
        monkeypatch.delenv(name)
    startup.restart_with_training_environment()
    startup.restart_with_training_environment()  # everything is set, so no second attempt
    arguments = [sys.executable, "-O", "/bin/prsr", "train", "--steps", "1"]
    assert tried == [(sys.executable, arguments, MALLOC)]


@linux
def test_usable_cores_respect_affinity_quota_and_hyper_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 5})
    assert usable_cores(tmp_path) == 4  # neither topology nor quota is known
    for processor, siblings in ((0, "0,4"), (1, "1,5"), (2, "2,6"), (5, "1,5")):
        topology = tmp_path / f"devices/system/cpu/cpu{processor}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(siblings)
    assert usable_cores(tmp_path) == 3
    (tmp_path / "fs/cgroup").mkdir(parents=True)
    for quota, cores in (("max 100000", 3), ("150000 100000", 2), ("1000 100000", 1), ("", 3)):
        Path(tmp_path / "fs/cgroup/cpu.max").write_text(quota)
        assert usable_cores(tmp_path) == cores
