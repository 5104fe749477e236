"""Build array files of cartoon faces, the training data of the model ``faces``, reproducibly.

    python examples/faces/build.py --out data/faces

writes ``faces-train.npy``, ``faces-validation.npy`` and ``faces-test.npy``, each ``uint8
[N, 3, 32, 32]``, for ``prsr train --data``. It needs Node.js 18 or newer and npm. Image i of a
split depends only on the split's name and i, not on the number of workers.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress

HERE = Path(__file__).parent
RENDERED = 96  # size of the images of render.mjs
SIZE = 32
CHUNK = 250  # images per renderer process


def install() -> None:
    """Install the versions of the renderer and the collections in package-lock.json."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            sys.exit(f"build.py needs {program}: install Node.js 18 or newer")
    # npm writes this file last, so it is missing after an interrupted installation.
    if not (HERE / "node_modules" / ".package-lock.json").is_file():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE, check=True)


def render(split: str, first: int, count: int) -> NDArray[np.uint8]:
    """Render images ``first`` … ``first + count − 1``: ``uint8 [count, 3, SIZE, SIZE]``."""
    command = ["node", "render.mjs", split, str(first), str(count)]
    output = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, check=True).stdout
    frames = np.frombuffer(output, np.uint8).reshape(count, RENDERED, RENDERED, 3)
    bicubic = Image.Resampling.BICUBIC
    small = [np.asarray(Image.fromarray(f).resize((SIZE, SIZE), bicubic)) for f in frames]
    return np.stack(small).transpose(0, 3, 1, 2)


def build(split: str, count: int, path: Path, workers: int, progress: Progress) -> None:
    """Write a split to ``path``, which appears only when it is complete."""
    temporary = path.with_name(f".writing-{path.name}")
    task = progress.add_task(split, total=count)
    try:
        pixels = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.uint8, shape=(count, 3, SIZE, SIZE)
        )
        starts = range(0, count, CHUNK)
        with ThreadPoolExecutor(workers) as pool:
            chunks = pool.map(lambda s: render(split, s, min(CHUNK, count - s)), starts)
            for start, chunk in zip(starts, chunks, strict=True):
                pixels[start : start + len(chunk)] = chunk
                progress.advance(task, len(chunk))
        pixels.flush()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def main() -> None:
    """Read the command line and build the three splits."""
    parser = argparse.ArgumentParser(description="Build the cartoon faces data set.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the array files")
    parser.add_argument("--train", type=int, default=50_000, help="number of training images")
    parser.add_argument("--validation", type=int, default=2_000)
    parser.add_argument("--test", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    for name in ("train", "validation", "test", "workers"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")

    paths = {s: options.out / f"faces-{s}.npy" for s in ("train", "validation", "test")}
    try:
        install()
        options.out.mkdir(parents=True, exist_ok=True)
        with Progress() as progress:
            for split, path in paths.items():
                build(split, getattr(options, split), path, options.workers, progress)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd)} failed with exit code {error.returncode}")
    for path in paths.values():
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")


if __name__ == "__main__":
    main()
