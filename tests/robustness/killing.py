"""Runs ``prsr`` again and again, kills it, and lets it go on; a program.

    python tests/robustness/killing.py train|data|sample writes|moments FOLDER KILLS SEED

``writes`` kills a run where it is about to change a file: before each such change in turn, or
before KILLS of them, from the first to the last, if there are more. ``moments`` kills at KILLS
moments that SEED decides. Every run that was killed goes on, and must end with what an undisturbed
one ends with.

All that takes time is imported once, and each run is a fork, so that few kills hit the start. The
last line printed is JSON: how many runs were killed, how many ended first, and how many rounds
were completed.
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
"""Audit events before a change of files; ``open`` is one if it is for writing."""


def commands(kind: str, inputs: Path, out: Path) -> list[str]:
    """The arguments of a command that can be killed; the same to begin and to go on."""
    if kind == "data":
        return ["data", "folder", f"{inputs}/photos", "--out", f"{out}/set.npy", "--preset", "tiny"]
    if kind == "sample":
        own = [f"{inputs}/photos", "-o", f"{out}/hr", "--model", f"{inputs}/model"]
        return ["sample", *own, "--low-resolution", "--seed", "3", "--samples", "2", "--resume"]
    own = ["--data", f"{inputs}/set.npy", "--out", f"{out}/run", "--preset", "tiny"]
    return ["train", *own, "--steps", "12", "--report-every", "2", "--batch-size", "2"]


def count_changes(out: Path, deadly: int) -> list[str]:
    """Count the changes of files below ``out`` from now on, and die before one of them.

    Only those of the main thread: in what order others come is not decided.

    Args:
        out: where files are changed.
        deadly: the number of the change that is not made; 0 for none.

    Returns:
        The changes so far; it grows.
    """
    changes: list[str] = []

    def note(change: str) -> None:
        if threading.current_thread() is threading.main_thread():
            changes.append(change)
            if len(changes) == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writing = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writing and str(arguments[0]).startswith(str(out))) or event in CHANGES:
            note(event)

    fsync = os.fsync

    def noted_fsync(file: int) -> None:
        note("fsync")
        fsync(file)

    os.fsync = noted_fsync
    sys.addaudithook(hook)
    return changes


def start(arguments: list[str], out: Path, deadly: int | None) -> int:
    """A child that runs ``prsr``; its process. It leaves the number of changes in a file."""
    child = os.fork()
    if child:
        return child
    with Path(f"{out}.log").open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["prsr", *arguments]
    changes = [] if deadly is None else count_changes(out, deadly)
    code = 70
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    Path(f"{out}.changes").write_text(str(len(changes)))
    os._exit(code)


def attempt(
    kind: str, inputs: Path, out: Path, deadly: int | None = None, patience: float | None = None
) -> bool:
    """Run the command to its end, or until it is killed; whether it ended.

    Args:
        kind: of command.
        inputs: what it reads.
        out: what it writes to.
        deadly: the number of the change of files before which it is killed; 0 only counts them,
            None does neither.
        patience: seconds before it is killed; None lets it end.
    """
    arguments = commands(kind, inputs, out)
    if kind == "train" and (out / "run" / "sheets").is_dir():
        arguments.append("--resume")
    child = start(arguments, out, deadly)
    if patience is not None:
        time.sleep(patience)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, Path(f"{out}.log").read_text()
        return False
    assert os.waitstatus_to_exitcode(status) == 0, Path(f"{out}.log").read_text()
    return True


def made(out: Path) -> dict[str, object]:
    """What a command has made, in values that can be compared; every file has its part."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.name == "checkpoint.safetensors":
            found[name] = {key: value.tolist() for key, value in load_file(path).items()}
        elif path.name.startswith("events.out"):
            found["events"] = {  # all but the last value of a step is of a run that was killed
                key: dict(zip(*values, strict=True))
                for key, values in read_curves(out / "run").items()
            }
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def prepare(kind: str, inputs: Path) -> None:
    """Photographs of random pixels, an array file and a model."""
    (inputs / "photos").mkdir(parents=True)
    random_pixels = np.random.default_rng(0)
    for number in range(12):
        pixels = random_pixels.integers(0, 256, (5, 4 + number % 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(inputs / "photos" / f"{number:02}.png")
    if kind == "data":  # prsr sample would end with 1
        (inputs / "photos" / "bad.png").write_bytes(b"no image")
    np.save(inputs / "set.npy", random_pixels.integers(0, 8, (9, 3, 6, 6), dtype=np.uint8))
    torch.manual_seed(0)
    PRSR(PRSRConfig.preset("tiny")).save_pretrained(inputs / "model")


def compare(out: Path, expected: dict[str, object]) -> None:
    """Raise AssertionError if a round has not made what is expected."""
    found = made(out)
    assert found.keys() == expected.keys(), (found.keys() ^ expected.keys(), out)
    for name, value in expected.items():
        assert found[name] == value, (name, out)


def supervise(kind: str, how: str, folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill that often, and compare every round with an undisturbed one."""
    inputs, whole = folder / "inputs", folder / "whole"
    prepare(kind, inputs)
    whole.mkdir()
    begun = time.monotonic()
    assert attempt(kind, inputs, whole, deadly=0)
    length = time.monotonic() - begun
    changes = int(Path(f"{whole}.changes").read_text())
    expected = made(whole)
    assert expected
    assert changes
    counts = {"kills": 0, "too late": 0, "rounds": 0}

    def run(out: Path, deadly: int | None = None, patience: float | None = None) -> bool:
        ended = attempt(kind, inputs, out, deadly, patience)
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
            assert not run(out, deadly=points[counts["rounds"]])
        else:
            while not ended and counts["kills"] < kills:
                ended = run(out, patience=chance.uniform(0, length))
        if not ended:
            attempt(kind, inputs, out)
        compare(out, expected)
        counts["rounds"] += 1
        shutil.rmtree(out)
    return counts


if __name__ == "__main__":
    kind, how, folder, kills, seed = sys.argv[1:]
    print(json.dumps(supervise(kind, how, Path(folder), int(kills), int(seed))))
