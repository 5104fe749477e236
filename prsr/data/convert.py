"""Convert a data source to an array file ``uint8 [N, D, H, W]``; resumes after a kill.

An unfinished conversion has two files beside its output: ``….partial``, the images so far, and
``….journal``, a line of JSON for each finished chunk. The journal decides: whatever the other file
has beyond it is discarded and converted again, so that the result is always the same, bit for bit.
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
from prsr.data.decoding import decode, no_warnings
from prsr.data.image_arrays import high_resolution, pillow_mode
from prsr.data.sources import DataSource, SourceImage
from prsr.utils.files import flush_to_disk, suppress_unsupported

CHUNK = 256  # source images per line of the journal, which is what a kill can lose


@dataclass(frozen=True)
class ConversionResult:
    """The outcome of converting images.

    Attributes:
        read: number of source images.
        unreadable: name and reason for each image that could not be read and was left out.
        odd_sized: number of images that do not have the expected size of their source.
        first_odd_sized: the first of these, with its size.
    """

    read: int = 0
    unreadable: list[list[str]] = field(default_factory=list)
    odd_sized: int = 0
    first_odd_sized: str = ""

    @property
    def written(self) -> int:
        """The number of images in the array."""
        return self.read - len(self.unreadable)

    def __add__(self, other: ConversionResult) -> ConversionResult:
        return ConversionResult(
            self.read + other.read,
            self.unreadable + other.unreadable,
            self.odd_sized + other.odd_sized,
            self.first_odd_sized or other.first_odd_sized,
        )


def convert(
    source: DataSource, out: Path, config: PRSRConfig, *, progress: bool = False
) -> ConversionResult:
    """Write the high-resolution images of ``source`` to ``out``; resumes an earlier call.

    Each image is cropped at the centre and resized bicubically, as for training. Unreadable images
    are left out. ``out`` appears only when it is complete.

    Args:
        source: the images.
        out: a ``.npy`` file.
        config: of the model, for D, H, W and K.
        progress: show a progress bar.

    Raises:
        BlockingIOError: another process is writing ``out``.
        FileExistsError: ``out`` exists.
        FileNotFoundError: the folder of ``out`` does not exist.
        ValueError: ``out`` does not end in ``.npy``; the unfinished conversion there is damaged or
            has another source or size; or no image can be read.
    """
    if not was_killed_before_cleanup(out):
        check_out(out)
    partial, journal = unfinished_files(out)
    shape = (config.channels, *config.high_size)
    title = {"source": source.description, "shape": shape, "levels": config.levels}
    if out.exists():
        result = result_of(journal, title, out, shape)
        if result is None:
            raise exists_error(out)
        journal.unlink(missing_ok=True)  # as below: another process may just have done it
        return result
    mode = pillow_mode(config)

    def convert_one(item: SourceImage) -> tuple[ConversionResult, bytes]:
        try:
            with open_source(item.source) as file:
                image = decode(file, mode)
            pixels = high_resolution(image, config).tobytes()
        except Exception as error:  # Pillow's decoders raise errors of many types
            return ConversionResult(1, [[item.name, f"{error}"]]), b""
        if source.size in (None, image.size):
            return ConversionResult(1), pixels
        described = f"{item.name} of {image.width}×{image.height}"
        return ConversionResult(1, odd_sized=1, first_odd_sized=described), pixels

    with journal.open("a+b") as log:
        lock(log, out)
        if out.exists():  # another process has finished it meanwhile
            raise exists_error(out)
        with partial.open("a+b") as array, ThreadPoolExecutor() as pool:
            result = finished_part(log, array, title, shape)
            rest = source.images_from(result.read)
            with no_warnings(), progress_bar(progress) as bar:
                task = bar.add_task("", total=len(source), completed=result.read)
                while chunk := list(islice(rest, CHUNK)):
                    converted = list(pool.map(convert_one, chunk))
                    part = sum((each for each, _ in converted), ConversionResult())
                    write_and_flush(array, b"".join(pixels for _, pixels in converted))
                    write_and_flush(log, journal_line(asdict(part)))
                    result += part
                    bar.update(task, completed=result.read)
        if not result.written:
            partial.unlink()
            journal.unlink()
            reason = ": ".join(result.unreadable[0]) if result.unreadable else "there is none"
            raise ValueError(f"not one of {result.read} images can be read; the first is {reason}")
        with partial.open("r+b") as array:
            write_and_flush(array, npy_header(result.written, shape))
        os.replace(partial, out)
        journal.unlink(missing_ok=True)
    return result


def unfinished_files(out: Path) -> tuple[Path, Path]:
    """The images so far and the journal of an unfinished conversion to ``out``."""
    return out.with_name(f"{out.name}.partial"), out.with_name(f"{out.name}.journal")


def was_killed_before_cleanup(out: Path) -> bool:
    """Whether a conversion to ``out`` may have been killed just before it removed its journal."""
    partial, journal = unfinished_files(out)
    return out.is_file() and journal.is_file() and not partial.exists()


def check_out(out: Path, suffix: str = ".npy") -> None:
    """Check that ``out`` can be created: it has the suffix, is new, and its folder exists.

    Raises:
        FileExistsError: it exists.
        FileNotFoundError: its folder does not exist.
        ValueError: it does not end in ``suffix``.
    """
    if out.suffix != suffix:
        raise ValueError(f"out must end in {suffix}, got {out}")
    if out.exists():
        raise exists_error(out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no folder {out.parent} to write {out.name} to")


def exists_error(out: Path) -> FileExistsError:
    """The error for an output that exists."""
    return FileExistsError(f"{out} already exists: delete it, or choose another out")


def open_source(source: Path | bytes) -> BinaryIO:
    """Open an image file given by its path or content."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def npy_header(images: int, shape: tuple[int, int, int]) -> bytes:
    """The header of an array file; NumPy pads it to the same length for any number of images."""
    about = {"descr": "|u1", "fortran_order": False, "shape": (images, *shape)}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()


def journal_line(values: dict[str, Any]) -> bytes:
    """Values as a line of the journal."""
    return json.dumps(values).encode() + b"\n"


def write_and_flush(file: BinaryIO, data: bytes) -> None:
    """Write data and wait for the disk: the journal must never be ahead of the array."""
    file.write(data)
    file.flush()
    flush_to_disk(file.fileno())


def lock(log: BinaryIO, out: Path) -> None:
    """Lock the journal against other processes until it is closed.

    The system releases the lock when the process ends. On a file system without locks
    there is none: a marker file, as ``filelock`` would create, could outlive a killed process and
    block the next run.

    Raises:
        BlockingIOError: another process has locked it.
    """
    try:
        with suppress_unsupported():
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(
            f"another process is writing {out}: wait for it, or choose another out"
        ) from error


def read_journal(
    content: bytes, name: str, title: dict[str, Any]
) -> tuple[ConversionResult, int] | None:
    """The result so far and the length of the complete lines; None for a journal without a title.

    Args:
        content: of the journal.
        name: of the journal, for messages.
        title: that it must have.

    Raises:
        ValueError: the journal is damaged, or of another source or size.
    """
    first, *lines = content.split(b"\n")[:-1] or [b""]  # drops an incomplete last line
    if not first:
        return None
    if first + b"\n" != journal_line(title):
        raise ValueError(
            f"{name} is of another data source or size: delete it, or choose another out"
        )
    try:
        result = sum((ConversionResult(**json.loads(each)) for each in lines), ConversionResult())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} is damaged: delete it ({error})") from error
    return result, sum(len(each) + 1 for each in (first, *lines))


def array_size(images: int, shape: tuple[int, int, int]) -> int:
    """The size of an array file in bytes."""
    return len(npy_header(images, shape)) + images * math.prod(shape)


def result_of(
    journal: Path, title: dict[str, Any], out: Path, shape: tuple[int, int, int]
) -> ConversionResult | None:
    """The result by the journal if ``out`` is the array file that it describes."""
    read = read_journal(journal.read_bytes(), str(journal), title)
    if (
        read is None
        or not out.is_file()
        or out.stat().st_size != array_size(read[0].written, shape)
    ):
        return None
    with out.open("rb") as file:
        header = npy_header(read[0].written, shape)
        return read[0] if file.read(len(header)) == header else None


def finished_part(
    log: BinaryIO, array: BinaryIO, title: dict[str, Any], shape: tuple[int, int, int]
) -> ConversionResult:
    """The result so far by the journal; truncates both files to that, or initialises them.

    Raises:
        ValueError: the journal is damaged, or of another source or size.
    """
    log.seek(0)
    read = read_journal(log.read(), log.name, title)
    if read is None or os.fstat(array.fileno()).st_size < array_size(read[0].written, shape):
        for file, begin in ((array, npy_header(0, shape)), (log, journal_line(title))):
            file.truncate(0)
            write_and_flush(file, begin)
        return ConversionResult()
    result, length = read
    array.truncate(array_size(result.written, shape))
    log.truncate(length)
    return result


def progress_bar(visible: bool) -> Progress:
    """The progress bar of a conversion."""
    return Progress(
        TextColumn("converting"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        disable=not visible,
        transient=True,
    )
