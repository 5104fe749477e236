"""Data sets of images in the layouts that people have on disk, read one by one in a fixed order.

CelebA (Liu et al., *Deep Learning Face Attributes in the Wild*, 2015), LSUN (Yu et al., arXiv
1506.03365), folders of images, and data sets of the Hugging Face hub. Nothing is decoded here.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from prsr.data.find_files import find_images

CELEBA_SPLITS = ("train", "validation", "test")
"""What 0, 1 and 2 mean in ``list_eval_partition.txt``."""

CELEBA_ALIGNED = (178, 218)
"""Width and height of every image of the aligned set."""


@dataclass(frozen=True)
class Original:
    """An image file: its name in the set, and where it lies or what it holds."""

    name: str
    source: Path | bytes


class Originals(ABC):
    """A set of image files.

    Attributes:
        description: tells this set from another, and from other states of itself.
        size: width and height that its images should have, if they should have any.
        faults: what is wrong with the set apart from its images, a line each.
    """

    description: str
    size: tuple[int, int] | None = None
    faults: Sequence[str] = ()

    @abstractmethod
    def __len__(self) -> int:
        """How many files there are."""

    @abstractmethod
    def after(self, start: int) -> Iterator[Original]:
        """Those from ``start`` on, always in the same order."""


class ImageFiles(Originals):
    """Files below a folder, by name.

    Args:
        folder: where they lie.
        names: of the files, relative to it; they need not exist.
        size: see :class:`Originals`.
        faults: likewise.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        size: tuple[int, int] | None = None,
        faults: Sequence[str] = (),
    ) -> None:
        self.description = f"{len(names)} files, checksum {checksum(folder, names):08x}"
        self.folder, self.names, self.size, self.faults = folder, names, size, faults

    def __len__(self) -> int:
        return len(self.names)

    def after(self, start: int) -> Iterator[Original]:
        """See :class:`Originals`."""
        for name in self.names[start:]:
            yield Original(name, self.folder / name)


def checksum(folder: Path, names: Sequence[str]) -> int:
    """Tells these files from others by names, sizes and times: none of them is read."""
    total = 0
    for name in names:
        try:
            status = (folder / name).stat()
        except OSError:  # what is missing or cannot be read is told when its turn comes
            stamp = ""
        else:
            stamp = f"{status.st_size} {status.st_mtime_ns}"
        total = zlib.crc32(f"{name} {stamp}\n".encode("utf-8", "surrogateescape"), total)
    return total


def image_folder(folder: Path) -> ImageFiles:
    """Every image file in a folder and below it, in order of name.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    return ImageFiles(folder, [str(path.relative_to(folder)) for path in find_images([folder])])


def celeba(folder: Path, split: str) -> ImageFiles:
    """The aligned images of CelebA: ``img_align_celeba/`` and ``list_eval_partition.txt``.

    They may lie side by side, or in ``Img/`` and ``Eval/`` as in the authors' own folder.

    Args:
        folder: that holds both.
        split: one of :data:`CELEBA_SPLITS`.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: the list names no image of the split.
    """
    images = one_of(folder, "img_align_celeba", "Img/img_align_celeba")
    partition = one_of(folder, "list_eval_partition.txt", "Eval/list_eval_partition.txt")
    names, faults = [], []
    lines = partition.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if len(words) == 2 and words[1] in ("0", "1", "2"):
            if CELEBA_SPLITS[int(words[1])] == split:
                names.append(words[0])
        elif words:
            faults.append(f"{partition}, line {number} is not NAME 0, 1 or 2: {line[:80]!r}")
    if not names:
        told = f"; {faults[0]}" if faults else ""
        raise ValueError(f"{partition} names no image of the split {split}{told}")
    return ImageFiles(images, names, CELEBA_ALIGNED, faults)


def one_of(folder: Path, *places: str) -> Path:
    """The first of some places in a folder where there is anything.

    Raises:
        FileNotFoundError: there is nothing at any of them.
    """
    for place in places:
        if (folder / place).exists():
            return folder / place
    raise FileNotFoundError(f"no {places[0]} in {folder}")


class Lsun(Originals):
    """A category of LSUN as its authors publish it: an LMDB of image files under hashed names.

    Args:
        path: the folder that holds ``data.mdb``.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ImportError: the package ``lmdb`` is not installed.
        ValueError: it is no LMDB, or an empty one.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError(f"no such folder: {path}")
        lmdb = of_extra("lmdb")
        try:
            self.environment = lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False
            )
            status = self.environment.stat()
            self.entries = int(status["entries"])
            # LMDB reads what it has mapped, and a page that is missing would end the process.
            size = (self.environment.info()["last_pgno"] + 1) * status["psize"]
            file = path / "data.mdb" if path.is_dir() else path
            if file.stat().st_size < size:
                raise ValueError(
                    f"{file} is cut off: it has {file.stat().st_size:,} bytes of {size:,}"
                )
            if not self.entries:
                raise ValueError(f"{path} holds no image")
            with self.environment.begin() as transaction, transaction.cursor() as cursor:
                ends = [cursor.key() for move in (cursor.first, cursor.last) if move()]
        except lmdb.Error as error:
            raise ValueError(f"{path} cannot be read as an LMDB: {error}") from error
        where, names = (path, ["data.mdb"]) if path.is_dir() else (path.parent, [path.name])
        self.description = (
            f"{self.entries} entries from {ends[0]!r} to {ends[1]!r}, "
            f"checksum {checksum(where, names):08x}"
        )

    def __len__(self) -> int:
        return self.entries

    def after(self, start: int) -> Iterator[Original]:
        """See :class:`Originals`."""
        with self.environment.begin() as transaction, transaction.cursor() as cursor:
            # Moving on reads no image: those lie in pages of their own.
            here = cursor.first() and all(cursor.next() for _ in range(start))
            while here:
                yield Original(cursor.key().decode("utf-8", "replace"), cursor.value())
                here = cursor.next()


class HubDataset(Originals):
    """A split of a data set of the Hugging Face hub, or of a folder that ``datasets`` can load.

    Args:
        name: of the data set, or the folder.
        split: of it, as ``datasets`` writes them: ``train``, ``train[:1000]``.
        column: that holds the images; None where there is only one that does.

    Raises:
        ImportError: the package ``datasets`` is not installed.
        ValueError: it cannot be loaded, or ``column`` is none of its columns of images.
    """

    def __init__(self, name: str, split: str, column: str | None = None) -> None:
        datasets = of_extra("datasets")
        try:
            rows = datasets.load_dataset(name, split=split)
        except Exception as error:  # of many kinds, from the network to the files
            raise ValueError(f"cannot load the split {split!r} of {name!r}: {error}") from error
        kinds = rows.features.items()
        columns = [key for key, kind in kinds if isinstance(kind, datasets.Image)]
        if column is None and len(columns) == 1:
            column = columns[0]
        if column not in columns:
            raise ValueError(
                f"column must be one of {name}'s columns of images "
                f"({', '.join(columns) or 'it has none'}), got {column}"
            )
        self.column = column
        self.rows: Any = rows.select_columns([column]).cast_column(
            column, datasets.Image(decode=False)
        )
        self.description = (
            f"{len(rows)} rows, split {split}, column {column} of {name}, "
            f"fingerprint {rows._fingerprint}"  # not public, but what datasets itself caches by
        )

    def __len__(self) -> int:
        return len(self.rows)

    def after(self, start: int) -> Iterator[Original]:
        """See :class:`Originals`."""
        for row in range(start, len(self.rows)):
            cell = self.rows[row][self.column] or {}
            path = cell.get("path")
            data = cell.get("bytes") or (Path(path) if path else b"")
            yield Original(f"row {row}", data)


def of_extra(module: str) -> Any:
    """A module of the extra ``data``.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"these originals need {module}: pip install 'prsr[data]'") from error
