"""Build array files of portraits, reproducibly; no person is in two splits.

    python examples/portraits/build.py --lfw lfw-deepfunneled.tgz --out data/portraits

writes ``portraits-train.npy``, ``uint8 [N, 3, 84, 84]``, which ``prsr train --augment`` crops, and
``portraits-validation.npy`` and ``portraits-test.npy``, ``uint8 [N, 3, 32, 32]``; with
``--congress``, also ``congress-test.npy``. With ``--packed``, it also writes each as a small
``.zip`` for another machine, which ``prsr data unpack`` reads.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from prsr import PRSRConfig
from prsr.data.image_arrays import Pixels, high_resolution
from prsr.data.packed_arrays import pack, unpack
from prsr.training.bicubic import resize
from prsr.utils.files import replacing

PERSONS, PHOTOGRAPHS = 5_749, 13_233  # of LFW
TRAINING = 11_415  # photographs of persons who are not held out
PORTRAITS = 1_237  # of members of Congress
HELD_OUT = 500  # persons, half of them for tests
BOX = (54, 52, 198, 196)  # crop of a 250×250 image that is resized to FRAME
# Sides in pixels of a photograph, of a training image, and of the crop that a model learns.
FRAME, TRAINING_SIZE, MODEL_CROP = 96, 84, 75
MODEL = PRSRConfig.preset("paper")  # 32×32
PACKED, QUALITY = 64, 95  # side in pixels of a packed training image, and its JPEG quality

OFFICIAL = re.compile(r"(?:.*/)?([^/]+)/\1_(\d{4})\.jpg")
NUMBERED = re.compile(r"(?:.*/)?(\d{4})_(\d{3})\.jpg")
PORTRAIT = re.compile(r"(?:.*/)?(\d{4})()\.jpg")


@dataclass(frozen=True)
class Photograph:
    """A photograph: number of its person, its number among theirs, name and content."""

    person: int
    number: int
    name: str
    data: bytes


def files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Path and content of every JPEG file in a folder or tar archive."""
    if source.is_dir():
        for path in source.rglob("*.jpg"):
            # Include the folder's name, which may be that of a person.
            yield path.relative_to(source.parent).as_posix(), path.read_bytes()
        return
    if not source.is_file():
        raise FileNotFoundError(f"no such folder or archive: {source}")
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None and member.name.endswith(".jpg"):
                    yield member.name, file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{source} is not a readable tar archive: {error}") from error


def photographs(source: Path, *layouts: re.Pattern[str]) -> list[Photograph]:
    """All photographs, sorted by person and number.

    A person's number is the index among all names in ASCII order, as in LFW's ``lfw-names.txt``;
    names that are numbers are used directly.

    Args:
        source: folder or archive.
        layouts: alternative patterns of paths; the first one that matches any path is used.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        ValueError: it is not readable, or contains no photograph with such a path.
    """
    found = list(files(source))
    for layout in layouts:
        matches = [(match, data) for name, data in found if (match := layout.fullmatch(name))]
        if matches:
            names = sorted({match[1] for match, _ in matches})
            place = {name: int(name) if name.isdecimal() else i for i, name in enumerate(names)}
            every = [
                Photograph(place[match[1]], int(match[2] or 0), match[0], data)
                for match, data in matches
            ]
            return sorted(every, key=lambda one: (one.person, one.number))
    raise ValueError(f"{source} holds no photograph with a known file name")


def split(persons: list[int]) -> dict[str, list[int]]:
    """The indices of each split's photographs, given the person of each photograph."""
    held_out = np.random.default_rng(0).permutation(PERSONS)[:HELD_OUT]
    test, validation = (set(half.tolist()) for half in np.split(held_out, 2))
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for place, person in enumerate(persons):
        name = "test" if person in test else "validation" if person in validation else "train"
        parts[name].append(place)
    return parts


def frame(photograph: Photograph) -> Image.Image:
    """A photograph at 96×96 with the face at the centre.

    Raises:
        ValueError: it cannot be read, or is neither 250×250 nor 96×96.
    """
    try:
        image = Image.open(io.BytesIO(photograph.data)).convert("RGB")
    except Exception as error:  # Pillow's decoders raise errors of many types
        raise ValueError(f"{photograph.name} cannot be read: {error}") from error
    if image.size == (FRAME, FRAME):
        return image
    if image.size == (250, 250):
        return image.crop(BOX).resize((FRAME, FRAME), Image.Resampling.LANCZOS)
    raise ValueError(f"{photograph.name} is {image.size}, neither 250×250 nor {FRAME}×{FRAME}")


def centre_square(image: Image.Image, side: int) -> Image.Image:
    """The square of ``side`` pixels at the centre, rounded up and left for an odd side."""
    start = (FRAME - side) // 2
    return image.crop((start, start, start + side, start + side))


def training_image(photograph: Photograph) -> Pixels:
    """A photograph for training, ``uint8 [3, TRAINING_SIZE, TRAINING_SIZE]``."""
    return np.asarray(centre_square(frame(photograph), TRAINING_SIZE)).transpose(2, 0, 1)


def model_image(photograph: Photograph) -> Pixels:
    """A photograph at the resolution of a model, ``uint8 [3, 32, 32]``."""
    return high_resolution(centre_square(frame(photograph), MODEL_CROP), MODEL)


def lfw(source: Path) -> dict[str, Pixels]:
    """The three splits of LFW.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        ValueError: it is not the complete set, or a photograph cannot be read.
    """
    every = photographs(source, OFFICIAL, NUMBERED)
    persons = [one.person for one in every]
    if set(persons) != set(range(PERSONS)) or len(every) != PHOTOGRAPHS:
        raise ValueError(
            f"{source} must hold {PHOTOGRAPHS:,} photographs of {PERSONS:,} persons, "
            f"it holds {len(every):,} of {len(set(persons)):,}"
        )
    parts = split(persons)
    if len(parts["train"]) != TRAINING:
        raise ValueError(
            f"{source} must have {TRAINING:,} photographs to train on, it has "
            f"{len(parts['train']):,}: its persons are numbered differently"
        )
    return {
        f"portraits-{name}": stack_images([every[place] for place in places], name)
        for name, places in parts.items()
    }


def congress(source: Path) -> dict[str, Pixels]:
    """The portraits of members of Congress, for tests.

    Raises:
        FileNotFoundError: ``source`` does not exist.
        ValueError: it is not the complete set, or a portrait cannot be read.
    """
    every = photographs(source, PORTRAIT)
    if len(every) != PORTRAITS:
        raise ValueError(f"{source} must hold {PORTRAITS:,} portraits, it holds {len(every):,}")
    return {"congress-test": stack_images(every, "congress")}


def stack_images(every: list[Photograph], name: str) -> Pixels:
    """Photographs as an array, for training or at the resolution of a model."""
    made = training_image if name == "train" else model_image
    return np.stack([made(one) for one in track(every, name)])


def write_packed(array: Path) -> None:
    """Pack an array file next to it: training images reduced, as JPEG; others losslessly."""
    out = array.with_suffix(".zip")
    out.unlink(missing_ok=True)
    pixels = np.load(array)
    if pixels.shape[-1] != TRAINING_SIZE:
        pack(array, out, progress=True)
        print(f"{out.stat().st_size:,} bytes  {out}: lossless")
        return
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        reduced, restored = Path(folder, "reduced.npy"), Path(folder, "restored.npy")
        np.save(reduced, resize_centre(pixels, PACKED, 1.0))
        pack(reduced, out, QUALITY, progress=True)
        unpack(out, restored)
        seen = [
            resize_centre(images, 32, MODEL_CROP / TRAINING_SIZE)
            for images in (pixels, np.load(restored))
        ]
    error = np.mean(np.square(np.subtract(*seen, dtype=np.float32)), dtype=np.float64)
    loss = 10 * np.log10(255**2 / error)
    print(f"{out.stat().st_size:,} bytes  {out}: {PACKED}×{PACKED}, pSNR at 32×32 {loss:.2f} dB")


def resize_centre(pixels: Pixels, size: int, share: float) -> Pixels:
    """Resize the centre of square images bicubically.

    Args:
        pixels: ``uint8 [N, 3, S, S]``.
        size: of the results in pixels.
        share: of the side to resize, above 0, at most 1.

    Returns:
        ``uint8 [N, 3, size, size]``.
    """
    side = pixels.shape[-1]
    margin = (1 - share) / 2 * side
    box = torch.tensor([[margin, margin, side - margin, side - margin]])
    parts = torch.from_numpy(pixels).split(64)
    return torch.cat([resize(part, (size, size), box) for part in parts]).numpy()


def main() -> None:
    """Read the command line and build the arrays."""
    parser = argparse.ArgumentParser(description="Build the data sets of portraits.")
    parser.add_argument(
        "--lfw",
        type=Path,
        required=True,
        help="lfw-deepfunneled.tgz, its unpacked folder, or a tar of 96×96 photographs",
    )
    parser.add_argument("--congress", type=Path, help="a tar or folder of 96×96 portraits")
    parser.add_argument("--out", type=Path, required=True, help="folder for the array files")
    parser.add_argument("--packed", action="store_true", help="also write .zip files")
    options = parser.parse_args()
    try:
        arrays = lfw(options.lfw)
        if options.congress:
            arrays |= congress(options.congress)
        options.out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        sys.exit(f"build.py: {error}")
    for name, pixels in arrays.items():
        path = options.out / f"{name}.npy"
        with replacing(path) as temporary:
            np.save(temporary, pixels)
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}  {list(pixels.shape)}")
        if options.packed:
            write_packed(path)


if __name__ == "__main__":
    main()
