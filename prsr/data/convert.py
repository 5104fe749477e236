"""Originals to an array file ``uint8 [N, D, H, W]``, decoded once; a kill loses a moment's work.

While it runs there are two files beside the one to come: ``….partial``, the images so far, and
``….journal``, a line of JSON for each chunk of originals that is done. The journal counts: what of
the other goes beyond it is cut off and done again, so that the end is the same to a byte.
"""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from prsr.config import PRSRConfig
from prsr.data.decoding import decode, quietly
from prsr.data.images import high_resolution, pillow_mode
from prsr.data.sources import Original, Originals
from prsr.utils.files import suppress_unsupported, synchronise

CHUNK = 256  # originals of a line of the journal: what a kill can lose


@dataclass(frozen=True)
class Converted:
    """What has come of originals.

    Attributes:
        read: how many there were.
        unreadable: name and reason for each that could not be read, and so was left out.
        odd: how many have another size than they should have.
        first_odd: the first of these, in words.
    """

    read: int = 0
    unreadable: list[list[str]] = field(default_factory=list)
    odd: int = 0
    first_odd: str = ""

    @property
    def written(self) -> int:
        """Images in the array."""
        return self.read - len(self.unreadable)

    def __add__(self, other: Converted) -> Converted:
        return Converted(
            self.read + other.read,
            self.unreadable + other.unreadable,
            self.odd + other.odd,
            self.first_odd or other.first_odd,
        )


def convert(
    originals: Originals, out: Path, config: PRSRConfig, *, progress: bool = False
) -> Converted:
    """Write the high-resolution images of ``originals`` to ``out``; goes on where a kill left it.

    Each is cropped in the middle and reduced bicubically, as for training. One that cannot be read
    is left out. ``out`` appears in one step, when all are done.

    Args:
        originals: the images.
        out: a ``.npy`` file.
        config: says what D, H, W and K are.
        progress: show a bar.

    Raises:
        BlockingIOError: another process is writing it just now.
        FileExistsError: ``out`` is there already.
        FileNotFoundError: the folder of ``out`` is not there.
        ValueError: ``out`` does not end in ``.npy``; what was begun there is of other originals or
            sizes, or damaged; or no original can be read.
    """
    check_out(out)
    mode = pillow_mode(config)
    partial, journal = (out.with_name(out.name + end) for end in (".partial", ".journal"))
    height, width = (config.scale * size for size in (config.low_height, config.low_width))
    shape = (config.channels, height, width)
    title = {"originals": originals.description, "shape": shape, "levels": config.levels}

    def attempt(original: Original) -> tuple[Converted, bytes]:
        source = original.source
        try:
            with open_source(source) as file:
                image = decode(file, mode)
            pixels = high_resolution(image, config).tobytes()
        except Exception as error:  # of many kinds: Pillow's decoders do not agree on one
            return Converted(1, [[original.name, f"{error}"]]), b""
        if originals.size in (None, image.size):
            return Converted(1), pixels
        odd = f"{original.name} of {image.width}×{image.height}"
        return Converted(1, odd=1, first_odd=odd), pixels

    with journal.open("a+b") as log:
        alone(log, out)
        check_out(out)  # another process may have finished it just now
        with partial.open("a+b") as array, ThreadPoolExecutor() as pool:
            done = resumed(log, array, title, shape)
            rest = originals.after(done.read)
            with quietly(), bar(progress) as shown:
                task = shown.add_task("", total=len(originals), completed=done.read)
                while chunk := list(islice(rest, CHUNK)):
                    results = list(pool.map(attempt, chunk))
                    part = sum((about for about, _ in results), Converted())
                    append(array, b"".join(pixels for _, pixels in results))
                    append(log, line(asdict(part)))
                    done += part
                    shown.update(task, completed=done.read)
        if not done.written:
            partial.unlink()
            journal.unlink()
            told = ": ".join(done.unreadable[0]) if done.unreadable else "there is none"
            raise ValueError(f"not one of {done.read} images can be read; the first is {told}")
        with partial.open("r+b") as array:
            append(array, npy_header(done.written, shape))
        os.replace(partial, out)
        journal.unlink()
    return done


def check_out(out: Path, suffix: str = ".npy") -> None:
    """There is a place to write a file of images to, and none stands there.

    Raises:
        FileExistsError: one does.
        FileNotFoundError: its folder does not exist.
        ValueError: it does not end in ``suffix``.
    """
    if out.suffix != suffix:
        raise ValueError(f"out must end in {suffix}, got {out}")
    if out.exists():
        raise FileExistsError(f"{out} is there already: delete it, or choose another out")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no folder {out.parent} to write {out.name} to")


def open_source(source: Path | bytes) -> BinaryIO:
    """An image file to read from."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def npy_header(images: int, shape: tuple[int, int, int]) -> bytes:
    """The head of an array file; NumPy makes it equally long for any number of images."""
    about = {"descr": "|u1", "fortran_order": False, "shape": (images, *shape)}
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, about)
    return head.getvalue()


def line(values: dict[str, Any]) -> bytes:
    """A line of the journal."""
    return json.dumps(values).encode() + b"\n"


def append(file: BinaryIO, data: bytes) -> None:
    """Write, and come back when the disk has it: the journal must never run ahead of the array."""
    file.write(data)
    file.flush()
    synchronise(file.fileno())


def alone(log: BinaryIO, out: Path) -> None:
    """Keep other processes from writing the same array, as long as the journal is open.

    A kill frees the lock. Where the file system has no locks, nothing is kept: a lock that is a
    file, which would be the way there, would outlive a kill and stop the next run.

    Raises:
        BlockingIOError: one is at it already.
    """
    try:
        with suppress_unsupported():
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(
            f"{out} is just being written by another process: wait for it, or choose another out"
        ) from error


def resumed(
    log: BinaryIO, array: BinaryIO, title: dict[str, Any], shape: tuple[int, int, int]
) -> Converted:
    """What a journal counts as done; cuts both files to that, or begins them where it is nothing.

    Raises:
        ValueError: the journal is of other originals or sizes, or damaged.
    """
    log.seek(0)
    first, *lines = log.read().split(b"\n")[:-1] or [b""]  # a line without an end was cut off
    if first and first + b"\n" != line(title):
        raise ValueError(
            f"{log.name} is of other originals, or of other sizes: delete it, or choose another out"
        )
    try:
        done = sum((Converted(**json.loads(each)) for each in lines), Converted())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{log.name} is damaged: delete it ({error})") from error
    head = npy_header(0, shape)
    end = len(head) + done.written * math.prod(shape)
    if not first or os.fstat(array.fileno()).st_size < end:
        for file, begin in ((array, head), (log, line(title))):
            file.truncate(0)
            append(file, begin)
        return Converted()
    array.truncate(end)
    log.truncate(sum(len(each) + 1 for each in (first, *lines)))
    return done


def bar(progress: bool) -> Progress:
    """A bar that is shown or not."""
    return Progress(
        TextColumn("converting"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        disable=not progress,
        transient=True,
    )
