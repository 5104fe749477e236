"""Packed array files for slow network links: strips of images as WebP or JPEG in a zip archive.

Lossless WebP preserves every level and packs 32×32 cartoons to a third of their size. JPEG without
chroma subsampling is far smaller for large photographs that will be reduced before use. The file
``index.json`` in the archive contains shape and format. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from rich.progress import track

from prsr.data.convert import check_out, npy_header
from prsr.data.dataset import map_array
from prsr.data.image_arrays import Pixels
from prsr.utils.argument_checks import check_integer, set_checked
from prsr.utils.files import replacing

VERSION = "prsr strips 1"
INDEX = "index.json"
STRIP_IMAGES = 64  # images stacked vertically; more do not compress better
MAX_STRIP_HEIGHT = 16_383  # rows of a strip: the limit of WebP
MAX_SIDE = 4_096  # pixels of a side; within both limits, Pillow does not warn about large images
MODES = {1: "L", 3: "RGB"}

Strip = TypeVar("Strip")


@dataclass(frozen=True)
class Index:
    """The content of ``index.json``.

    Attributes:
        version: of the archive format.
        shape: N, D, H, W of the array.
        strip: images per strip; the last strip may have fewer.
        format: of the strips, ``webp`` or ``jpeg``.

    Raises:
        ValueError: a value is out of range.
    """

    version: str
    shape: list[int]
    strip: int
    format: str

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"its version is {self.version!r}, not {VERSION!r}")
        if self.format not in ("webp", "jpeg"):
            raise ValueError(f"its format is {self.format!r}, not webp or jpeg")
        n, channels, height, width = self.shape
        n = check_integer(n, "N", 1, 2**40)
        channels = check_integer(channels, "D", 1, 4)
        height, width = (
            check_integer(value, name, 1, MAX_SIDE + 1)
            for name, value in (("H", height), ("W", width))
        )
        strip = check_integer(self.strip, "strip", 1, MAX_STRIP_HEIGHT // height + 1)
        if channels not in MODES:
            raise ValueError(f"it has {channels} channels, not 1 or 3")
        set_checked(self, "shape", [n, channels, height, width])
        set_checked(self, "strip", strip)

    @property
    def starts(self) -> range:
        """The index of the first image of each strip."""
        return range(0, self.shape[0], self.strip)

    def name(self, start: int) -> str:
        """The file name of the strip that begins with image ``start``."""
        return f"{start:09}.{self.format}"

    def size(self, start: int) -> tuple[int, int]:
        """Width and height in pixels of the strip that begins with image ``start``."""
        n, _, height, width = self.shape
        return width, height * min(self.strip, n - start)


def pack(source: Path, out: Path, quality: int | None = None, *, progress: bool = False) -> int:
    """Pack an array file; ``out`` appears only when it is complete.

    Args:
        source: a ``.npy`` file, ``uint8 [N, D, H, W]`` with D 1 or 3.
        out: a ``.zip`` file; the same array and libraries give the same bytes.
        quality: of JPEG, 1 … 100; None is lossless WebP.
        progress: show a progress bar.

    Returns:
        The size of ``out`` in bytes.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: ``source`` or the folder of ``out`` does not exist.
        ValueError: ``source`` is not such an array, ``out`` does not end in ``.zip``, or
            ``quality`` is out of range.
    """
    check_out(out, ".zip")
    if quality is not None:
        quality = check_integer(quality, "quality", 1, 101)
    if not source.is_file():
        raise FileNotFoundError(f"no such array file: {source}")
    pixels = map_array(source)
    shape = list(pixels.shape)
    if len(shape) != 4 or shape[1] not in MODES or 0 in shape or pixels.dtype != np.uint8:
        raise ValueError(
            f"{source} must be uint8 [N, 1 or 3, height, width], it is {pixels.dtype} {shape}"
        )
    if max(shape[2:]) > MAX_SIDE:
        raise ValueError(
            f"{source} must hold images of at most {MAX_SIDE} pixels per side, not {shape}"
        )
    strip = min(STRIP_IMAGES, MAX_STRIP_HEIGHT // shape[2])
    index = Index(VERSION, shape, strip, "webp" if quality is None else "jpeg")

    def encode_strip(start: int) -> bytes:
        return encode(np.asarray(pixels[start : start + strip]), quality)

    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(zipfile.ZipInfo(INDEX), json.dumps(asdict(index)))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            strips = zip(index.starts, pool.map(encode_strip, index.starts), strict=True)
            for start, data in with_progress(strips, len(index.starts), "packing", progress):
                archive.writestr(zipfile.ZipInfo(index.name(start)), data)
    return out.stat().st_size


def unpack(source: Path, out: Path, *, progress: bool = False) -> tuple[int, ...]:
    """Write the array file of a packed one; ``out`` appears only when it is complete.

    Args:
        source: an archive written by :func:`pack`.
        out: a ``.npy`` file.
        progress: show a progress bar.

    Returns:
        The shape [N, D, H, W] of the array.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: ``source`` or the folder of ``out`` does not exist.
        ValueError: ``source`` is damaged or not such an archive, or ``out`` does not end in
            ``.npy``.
    """
    check_out(out)
    if not source.is_file():
        raise FileNotFoundError(f"no such packed array file: {source}")
    with open_archive(source) as (archive, index):
        n, *shape = index.shape

        def decode_strip(start: int) -> Pixels:
            with damage_as_value_error(source):
                return decode(archive.read(index.name(start)), index, start)

        with (
            replacing(out) as temporary,
            temporary.open("wb") as file,
            ThreadPoolExecutor(os.cpu_count()) as pool,
        ):
            file.write(npy_header(n, (shape[0], shape[1], shape[2])))
            strips = pool.map(decode_strip, index.starts)
            for pixels in with_progress(strips, len(index.starts), "unpacking", progress):
                file.write(pixels.tobytes())
    return tuple(index.shape)


@contextmanager
def open_archive(path: Path) -> Iterator[tuple[zipfile.ZipFile, Index]]:
    """Open a packed array file; yields the archive and its index.

    Raises:
        ValueError: it is damaged or not such an archive.
    """
    with ExitStack() as stack:
        with damage_as_value_error(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            with archive.open(INDEX) as file:
                index = Index(**json.loads(file.read(2**16)))
            names = {INDEX, *(info.filename for info in archive.infolist())}
            if len(names) != len(index.starts) + 1:
                raise ValueError(f"it has {len(names) - 1} strips, not {len(index.starts)}")
        yield archive, index


@contextmanager
def damage_as_value_error(path: Path) -> Iterator[None]:
    """Turn every error of reading a file into a one-line ValueError."""
    try:
        yield
    except Exception as error:  # zipfile, JSON and Pillow raise errors of many types
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is not a readable packed array file: {reason}") from error


def decode(data: bytes, index: Index, start: int) -> Pixels:
    """The images of a strip, ``uint8 [n, D, H, W]``; raises Pillow's errors and ValueError."""
    _, channels, height, width = index.shape
    with Image.open(io.BytesIO(data), formats=[index.format]) as strip:
        if strip.size != index.size(start):
            raise ValueError(f"{index.name(start)} is {strip.size}, not {index.size(start)}")
        rows = np.asarray(strip.convert(MODES[channels]))
    images = rows.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images)


def with_progress(
    strips: Iterable[Strip], total: int, label: str, progress: bool
) -> Iterable[Strip]:
    """The same iterable; shows a progress bar if ``progress``."""
    return track(strips, label, total=total, disable=not progress, transient=True)


def encode(images: Pixels, quality: int | None) -> bytes:
    """Images ``uint8 [n, D, H, W]``, stacked vertically, as a WebP or JPEG file."""
    n, channels, height, width = images.shape
    rows = images.transpose(0, 2, 3, 1).reshape(n * height, width, channels)
    strip = Image.fromarray(np.ascontiguousarray(rows[..., 0] if channels == 1 else rows))
    file = io.BytesIO()
    if quality is None:
        strip.save(file, "WEBP", lossless=True, quality=90, method=4)
    else:
        strip.save(file, "JPEG", quality=quality, subsampling=0, optimize=True)
    return file.getvalue()
