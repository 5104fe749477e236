"""Runs ``prsr`` again and again, kills it at random moments, and lets it go on; a program.

It has imported all that takes time and forks for each run, so that a kill seldom hits the start.

    python tests/robustness/killing.py train|data|sample FOLDER KILLS SEED

prints a line of JSON: how many runs were killed, how many ended, and how many rounds were whole.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import prsr.training.loop  # noqa: F401  (imported here, that children need not)
from prsr import PRSR, PRSRConfig
from prsr.cli import sample_files
from prsr.cli.main import main
from prsr.data import convert
from prsr.evaluation.plots import read_curves

convert.CHUNK = 2  # images per line of the journal
sample_files.CHUNK = 2
torch.set_num_threads(1)


def commands(kind: str, inputs: Path, out: Path) -> list[str]:
    """The arguments of a command that can be killed; the same to begin and to go on."""
    if kind == "data":
        return ["data", "folder", f"{inputs}/photos", "--out", f"{out}/set.npy", "--preset", "tiny"]
    if kind == "sample":
        own = [f"{inputs}/photos", "-o", f"{out}/hr", "--model", f"{inputs}/model"]
        return ["sample", *own, "--low-resolution", "--seed", "3", "--samples", "2", "--resume"]
    own = ["--data", f"{inputs}/set.npy", "--out", f"{out}/run", "--preset", "tiny"]
    return ["train", *own, "--steps", "12", "--report-every", "2", "--batch-size", "2"]


def start(arguments: list[str], log: Path) -> int:
    """A child that runs ``prsr``; its process."""
    child = os.fork()
    if child:
        return child
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["prsr", *arguments]
    try:
        main()
    except SystemExit as ended:
        os._exit(ended.code if isinstance(ended.code, int) else 0)
    os._exit(70)


def attempt(kind: str, inputs: Path, out: Path, patience: float | None) -> bool:
    """Run the command to its end, or until it is killed; whether it ended.

    Args:
        kind: of command.
        inputs: what it reads.
        out: what it writes to.
        patience: seconds before it is killed; None lets it end.
    """
    arguments = commands(kind, inputs, out)
    if kind == "train" and (out / "run" / "sheets").is_dir():
        arguments.append("--resume")
    child = start(arguments, out / "log")
    if patience is not None:
        time.sleep(patience)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.waitstatus_to_exitcode(status) == 0, (out / "log").read_text()
    return True


def made(kind: str, out: Path) -> dict[str, object]:
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
        elif path.is_file() and path.name != "log":
            found[name] = path.read_bytes()
    return found


def prepare(inputs: Path) -> None:
    """Photographs of random pixels, an array file and a model."""
    (inputs / "photos").mkdir(parents=True)
    random_pixels = np.random.default_rng(0)
    for number in range(12):
        pixels = random_pixels.integers(0, 256, (5, 4 + number % 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(inputs / "photos" / f"{number:02}.png")
    (inputs / "photos" / "bad.png").write_bytes(b"no image")
    np.save(inputs / "set.npy", random_pixels.integers(0, 8, (9, 3, 6, 6), dtype=np.uint8))
    torch.manual_seed(0)
    PRSR(PRSRConfig.preset("tiny")).save_pretrained(inputs / "model")


def supervise(kind: str, folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill so many times; every round must end with what an undisturbed one ends with."""
    inputs, whole = folder / "inputs", folder / "whole"
    prepare(inputs)
    if kind == "sample":  # its exit code would be 1
        (inputs / "photos" / "bad.png").unlink()
    whole.mkdir()
    begun = time.monotonic()
    assert attempt(kind, inputs, whole, None)
    length = time.monotonic() - begun
    expected = made(kind, whole)
    assert expected
    chance = random.Random(seed)
    counts = {"kills": 0, "too late": 0, "rounds": 0}
    while counts["kills"] < kills:
        out = folder / f"round-{counts['rounds']}"
        out.mkdir()
        ended = False
        while not ended and counts["kills"] < kills:
            ended = attempt(kind, inputs, out, chance.uniform(0, length))
            counts["too late" if ended else "kills"] += 1
        if not ended:
            attempt(kind, inputs, out, None)
        found = made(kind, out)
        assert found.keys() == expected.keys(), (found.keys() ^ expected.keys(), out)
        for name, value in expected.items():
            assert found[name] == value, (name, out)
        counts["rounds"] += 1
        shutil.rmtree(out)
    return counts


if __name__ == "__main__":
    kind, folder, kills, seed = sys.argv[1:]
    print(json.dumps(supervise(kind, Path(folder), int(kills), int(seed))))
