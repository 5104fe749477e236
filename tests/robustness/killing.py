"""Run ``prsr`` repeatedly, kill it, and let it resume; a program.

    python tests/robustness/killing.py train|data|sample writes|moments FOLDER KILLS SEED

``writes`` kills a run just before it changes a file: before each change in turn, or, if there are
more than KILLS changes, before KILLS of them, evenly spaced. ``moments`` kills at KILLS random
times, seeded by SEED. Every killed run is resumed and must end with the output of an undisturbed
run.

Slow modules are imported once and each run is a fork, so that few kills hit the start. The last
line printed is JSON: the number of runs killed, of runs that ended first, and of rounds completed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import prsr.training.loop  # noqa: F401  (imported here, so that children need not)
from prsr import PRSR, PRSRConfig
from prsr.cli import sample_files
from prsr.cli.main import main
from prsr.data import convert
from prsr.evaluation.plots import read_curves

convert.CHUNK = 2  # images per line of the journal
sample_files.CHUNK = 2
torch.set_num_threads(1)

CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
"""Audit events that precede a change of files, besides ``open`` for writing."""


def commands(kind: str, inputs: Path, out: Path) -> list[str]:
    """The arguments of a command, the same to start and to resume it."""
    if kind == "data":
        return ["data", "folder", f"{inputs}/photos", "--out", f"{out}/set.npy", "--preset", "tiny"]
    if kind == "sample":
        own = [f"{inputs}/photos", "-o", f"{out}/hr", "--model", f"{inputs}/model"]
        return ["sample", *own, "--low-resolution", "--seed", "3", "--samples", "2", "--resume"]
    own = ["--data", f"{inputs}/set.npy", "--out", f"{out}/run", "--preset", "tiny"]
    return ["train", *own, "--steps", "12", "--report-every", "2", "--batch-size", "2"]


def count_changes(out: Path, kill_at: int) -> list[str]:
    """Record changes of files below ``out`` from now on, and kill the process before one of them.

    Only changes of the main thread count: the order of the others varies.

    Args:
        out: the folder of the files.
        kill_at: the number of the change before which to kill the process; 0 for none.

    Returns:
        The changes so far, a list that grows.
    """
    changes: list[str] = []

    def record(change: str) -> None:
        if threading.current_thread() is threading.main_thread():
            changes.append(change)
            if len(changes) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writing = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writing and str(arguments[0]).startswith(str(out))) or event in CHANGES:
            record(event)

    fsync = os.fsync

    def recorded_fsync(file: int) -> None:
        record("fsync")
        fsync(file)

    os.fsync = recorded_fsync
    sys.addaudithook(hook)
    return changes


def start(arguments: list[str], out: Path, kill_at: int | None) -> int:
    """Start a child that runs ``prsr`` and saves its number of changes; returns its PID."""
    child = os.fork()
    if child:
        return child
    with Path(f"{out}.log").open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["prsr", *arguments]
    changes = [] if kill_at is None else count_changes(out, kill_at)
    code = 70
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    Path(f"{out}.changes").write_text(str(len(changes)))
    os._exit(code)


def attempt(
    kind: str, inputs: Path, out: Path, kill_at: int | None = None, timeout: float | None = None
) -> bool:
    """Run a command until it ends or is killed; returns whether it ended.

    Args:
        kind: of the command.
        inputs: the folder that it reads.
        out: the folder that it writes to.
        kill_at: the number of the change before which it is killed; 0 only counts changes, and None
            does neither.
        timeout: seconds after which it is killed; None lets it end.
    """
    arguments = commands(kind, inputs, out)
    if kind == "train" and (out / "run" / "sheets").is_dir():
        arguments.append("--resume")
    child = start(arguments, out, kill_at)
    if timeout is not None:
        time.sleep(timeout)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, Path(f"{out}.log").read_text()
        return False
    assert os.waitstatus_to_exitcode(status) == 0, Path(f"{out}.log").read_text()
    return True


def output_of(out: Path) -> dict[str, object]:
    """The output of a command as comparable values, by file."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.name == "checkpoint.safetensors":
            found[name] = {key: value.tolist() for key, value in load_file(path).items()}
        elif path.name.startswith("events.out"):
            found["events"] = {  # for a repeated step, the last value
                key: dict(zip(*values, strict=True))
                for key, values in read_curves(out / "run").items()
            }
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def prepare(kind: str, inputs: Path) -> None:
    """Write images of random pixels, an array file and a model."""
    (inputs / "photos").mkdir(parents=True)
    random_pixels = np.random.default_rng(0)
    for number in range(12):
        pixels = random_pixels.integers(0, 256, (5, 4 + number % 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(inputs / "photos" / f"{number:02}.png")
    if kind == "data":  # with it, prsr sample would exit with 1
        (inputs / "photos" / "bad.png").write_bytes(b"no image")
    np.save(inputs / "set.npy", random_pixels.integers(0, 8, (9, 3, 6, 6), dtype=np.uint8))
    torch.manual_seed(0)
    PRSR(PRSRConfig.preset("tiny")).save_pretrained(inputs / "model")


def compare(out: Path, expected: dict[str, object]) -> None:
    """Raise AssertionError if the output of a round is not the expected one."""
    found = output_of(out)
    assert found.keys() == expected.keys(), (found.keys() ^ expected.keys(), out)
    for name, value in expected.items():
        assert found[name] == value, (name, out)


def supervise(kind: str, how: str, folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill ``kills`` times, and compare every round with an undisturbed run."""
    inputs, undisturbed = folder / "inputs", folder / "undisturbed"
    prepare(kind, inputs)
    undisturbed.mkdir()
    started = time.monotonic()
    assert attempt(kind, inputs, undisturbed, kill_at=0)
    length = time.monotonic() - started
    changes = int(Path(f"{undisturbed}.changes").read_text())
    expected = output_of(undisturbed)
    assert expected
    assert changes
    counts = {"kills": 0, "too late": 0, "rounds": 0}

    def run(out: Path, kill_at: int | None = None, timeout: float | None = None) -> bool:
        ended = attempt(kind, inputs, out, kill_at, timeout)
        counts["too late" if ended else "kills"] += 1
        return ended

    chance = random.Random(seed)
    points = range(1, changes + 1)
    if kills < changes:
        points = [1 + i * (changes - 1) // (kills - 1) for i in range(kills)]
    while counts["kills"] < kills if how == "moments" else counts["rounds"] < len(points):
        out = folder / f"round-{counts['rounds']}"
        out.mkdir()
        ended = False
        if how == "writes":
            assert not run(out, kill_at=points[counts["rounds"]])
        else:
            while not ended and counts["kills"] < kills:
                ended = run(out, timeout=chance.uniform(0, length))
        if not ended:
            attempt(kind, inputs, out)
        compare(out, expected)
        counts["rounds"] += 1
        shutil.rmtree(out)
    return counts


if __name__ == "__main__":
    kind, how, folder, kills, seed = sys.argv[1:]
    print(json.dumps(supervise(kind, how, Path(folder), int(kills), int(seed))))
