"""Build array files of crops of the photos in a Debian package, reproducibly.

    python examples/photographs/build.py --out data/photographs

writes ``photographs-train.npy``, ``photographs-validation.npy`` and ``photographs-test.npy``, each
``uint8 [N, 3, 32, 32]``, for ``prsr train --data``, and ``photographs-credits.csv``. It needs
apt-get and dpkg-deb, as in Debian and its derivatives. No photo is in two splits.
"""

from __future__ import annotations

import argparse
import csv
import email
import hashlib
import io
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from prsr.utils.files import replacing

PACKAGE = "gcompris-qt-data"
# Without explore_monuments, some of whose photos are also in categorization.
ACTIVITIES = ("categorization", "erase", "explore_farm_animals", "explore_world_animals")
FREE = re.compile(r"public-domain|CC0-.*|CC-BY-\d.*")
# The copyright notices of these do not match the photos.
DOUBTFUL = re.compile(r"fishes/.*|renewable/(dam3|solar3|windmill14)|tools/hammer3")
SIZE = 32
CROPS = {"train": 250, "validation": 60, "test": 100}  # crops per photo


@dataclass(frozen=True)
class Notice:
    """The copyright notice of a file."""

    author: str = ""
    licence: str = ""
    source: str = ""


@dataclass(frozen=True)
class Photo:
    """A photo: folder and name, content of the file, and copyright notice."""

    name: str
    data: bytes
    notice: Notice

    @property
    def free(self) -> bool:
        """Whether its crops may be published: public domain, CC0 or CC BY."""
        if DOUBTFUL.fullmatch(self.name):
            return False
        return FREE.fullmatch(self.notice.licence) is not None


def unpack(folder: Path) -> None:
    """Download the package with apt-get and unpack it in ``folder``."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            sys.exit(f"build.py needs {program}, as in Debian and its derivatives")
    subprocess.run(["apt-get", "download", "--quiet", PACKAGE], cwd=folder, check=True)
    (archive,) = folder.glob("*.deb")
    print(f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}")
    subprocess.run(["dpkg-deb", "--extract", str(archive), str(folder)], check=True)


def files_in(resources: bytes) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file in a Qt resource file; compressed files stay compressed.

    The format is that of Qt's qresource.cpp: a tree of nodes, in which a directory refers to its
    first child and their number, a table of names and a table of data.
    """
    magic, version, tree, data, names = struct.unpack_from(">4s4I", resources)
    if magic != b"qres" or version not in (1, 2, 3):
        raise ValueError("not a Qt resource file of version 1 to 3")
    size = 14 if version == 1 else 22

    def files_below(node: int, path: str) -> Iterator[tuple[str, bytes]]:
        name, flags, *directory = struct.unpack_from(">IHII", resources, tree + node * size)
        if node:
            (length,) = struct.unpack_from(">H", resources, names + name)
            start = names + name + 6  # after the length and a hash
            path += "/" + resources[start : start + 2 * length].decode("utf-16-be")
        if flags & 2:
            count, first = directory
            for child in range(first, first + count):
                yield from files_below(child, path)
        else:
            start = data + directory[1]
            (length,) = struct.unpack_from(">I", resources, start)
            yield path, resources[start + 4 : start + 4 + length]

    return files_below(0, "")


def notices(copyright_file: str) -> dict[str, Notice]:
    """The notices of a machine-readable copyright file, by path without suffix."""
    found = {}
    for paragraph in re.split(r"\n\s*\n", copyright_file):
        fields = dict(email.message_from_string(paragraph).items())
        text = {key: " ".join(value.split()) for key, value in fields.items()}
        licence = fields.get("License", "").strip().split("\n")[0]
        notice = Notice(text.get("Copyright", ""), licence, text.get("Comment", ""))
        for path in text.get("Files", "").split():
            found[str(Path(path).with_suffix(""))] = notice
    return found


def photos(folder: Path) -> list[Photo]:
    """All photos of the unpacked package, sorted by name."""
    share = folder / "usr" / "share"
    notice_of = notices((share / "doc" / PACKAGE / "copyright").read_text(encoding="utf-8"))
    found = []
    for activity in ACTIVITIES:
        resources = (share / "gcompris-qt" / "rcc" / f"{activity}.rcc").read_bytes()
        for path, data in files_in(resources):
            if path.endswith(".webp"):
                plain = Path(path.removeprefix("/gcompris/")).with_suffix("")
                name = f"{plain.parent.name}/{plain.name}"
                found.append(Photo(name, data, notice_of.get(str(plain), Notice())))
    return sorted(found, key=lambda photo: photo.name)


def split(every: list[Photo]) -> dict[str, list[Photo]]:
    """Split photos: free ones alternate between test and validation; others are for training."""
    free = [photo for photo in every if photo.free]
    others = [photo for photo in every if not photo.free]
    return {"train": others, "validation": free[1::2], "test": free[0::2]}


def random_crops(photo: Photo, count: int) -> NDArray[np.uint8]:
    """Random square crops of a photo, a third to all of its shorter side, half of them mirrored.

    Returns:
        ``uint8 [count, 3, SIZE, SIZE]``; crop i depends only on the photo's name and i.
    """
    image = Image.open(io.BytesIO(photo.data)).convert("RGB")
    crops = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for i in range(count):
        random = np.random.default_rng((zlib.crc32(photo.name.encode()), i))
        side = round(min(image.size) * 3 ** -random.random())
        left, top = (int(random.integers(length - side + 1)) for length in image.size)
        box = (left, top, left + side, top + side)
        small = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box))
        crops[i] = small[:, ::-1] if random.random() < 0.5 else small
    return crops.transpose(0, 3, 1, 2)


def main() -> None:
    """Read the command line and build the three splits."""
    parser = argparse.ArgumentParser(description="Build the data set of photographs.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the array files")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        try:
            unpack(Path(folder))
        except subprocess.CalledProcessError as error:
            sys.exit(f"{' '.join(error.cmd)} failed with exit code {error.returncode}")
        splits = split(photos(Path(folder)))
    out.mkdir(parents=True, exist_ok=True)
    for name, members in splits.items():
        path = out / f"photographs-{name}.npy"
        crops = np.stack([random_crops(photo, CROPS[name]) for photo in track(members, name)])
        with replacing(path) as temporary:
            # Interleaved: the first crop of every photo, then the second ones.
            np.save(temporary, crops.swapaxes(0, 1).reshape(-1, *crops.shape[2:]))
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")
    with replacing(out / "photographs-credits.csv") as temporary, temporary.open("w") as file:
        table = csv.writer(file)
        table.writerow(["split", "place", "photo", "author", "licence", "source"])
        for name, members in splits.items():
            for place, photo in enumerate(members):
                notice = photo.notice
                row = [name, place, photo.name, notice.author, notice.licence, notice.source]
                table.writerow(row)


if __name__ == "__main__":
    main()
