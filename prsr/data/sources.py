"""Data sources: image files in the layouts of public data sets, read in a fixed order.

CelebA (Liu et al., *Deep Learning Face Attributes in the Wild*, 2015), LSUN (Yu et al., arXiv
1506.03365), folders of images, and data sets on the Hugging Face hub. Nothing is decoded here.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from prsr.data.find_files import find_images

CELEBA_SPLITS = ("train", "validation", "test")
"""The splits that 0, 1 and 2 stand for in ``list_eval_partition.txt``."""

CELEBA_ALIGNED = (178, 218)
"""Width and height of every image of the aligned set, in pixels."""


@dataclass(frozen=True)
class SourceImage:
    """An image file: its name in the data set, and its path or content."""

    name: str
    source: Path | bytes


class DataSource(ABC):
    """A set of image files in a fixed order.

    Attributes:
        description: identifies the set and its current content.
        size: expected width and height of its images; None if they may vary.
        faults: problems with the set itself, one line each.
    """

    description: str
    size: tuple[int, int] | None = None
    faults: Sequence[str] = ()

    @abstractmethod
    def __len__(self) -> int:
        """The number of files."""

    @abstractmethod
    def images_from(self, start: int) -> Iterator[SourceImage]:
        """The images from index ``start`` on, always in the same order."""


class ImageFiles(DataSource):
    """Image files in a folder, by name.

    Args:
        folder: that contains them.
        names: paths relative to the folder; they need not exist.
        size: see :class:`DataSource`.
        faults: see :class:`DataSource`.
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

    def images_from(self, start: int) -> Iterator[SourceImage]:
        """See :class:`DataSource`."""
        for name in self.names[start:]:
            yield SourceImage(name, self.folder / name)


def checksum(folder: Path, names: Sequence[str]) -> int:
    """A checksum of the names, sizes and modification times of files; it reads none of them."""
    total = 0
    for name in names:
        try:
            status = (folder / name).stat()
        except OSError:  # reported when the file is read
            stamp = ""
        else:
            stamp = f"{status.st_size} {status.st_mtime_ns}"
        total = zlib.crc32(f"{name} {stamp}\n".encode("utf-8", "surrogateescape"), total)
    return total


def image_folder(folder: Path) -> ImageFiles:
    """Every image file in a folder and its subfolders, sorted by name.

    Raises:
        FileNotFoundError: the folder does not exist or contains no image.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    return ImageFiles(folder, [str(path.relative_to(folder)) for path in find_images([folder])])


def celeba(folder: Path, split: str) -> ImageFiles:
    """The aligned images of CelebA: ``img_align_celeba/`` and ``list_eval_partition.txt``.

    Both may be directly in the folder, or in ``Img/`` and ``Eval/`` as the authors publish them.

    Args:
        folder: that contains both.
        split: one of :data:`CELEBA_SPLITS`.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: the list contains no image of the split.
    """
    images = first_existing(folder, "img_align_celeba", "Img/img_align_celeba")
    partition = first_existing(folder, "list_eval_partition.txt", "Eval/list_eval_partition.txt")
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
        reason = f"; {faults[0]}" if faults else ""
        raise ValueError(f"{partition} names no image of the split {split}{reason}")
    return ImageFiles(images, names, CELEBA_ALIGNED, faults)


def first_existing(folder: Path, *names: str) -> Path:
    """The first existing path among alternatives.

    Args:
        folder: that the alternatives are relative to.
        names: alternative paths.

    Raises:
        FileNotFoundError: none of them exists.
    """
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"no {names[0]} in {folder}")


class Lsun(DataSource):
    """A category of LSUN as published: an LMDB of image files under hashed names.

    Args:
        path: the folder that contains ``data.mdb``.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        ImportError: the package ``lmdb`` is not installed.
        ValueError: it is not an LMDB, or is truncated or empty.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError(f"no such folder: {path}")
        lmdb = import_from_extra("lmdb")
        self.path, self.error = path, lmdb.Error
        with self._readable():
            self.environment = lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False
            )
            status = self.environment.stat()
            self.entries = int(status["entries"])
            # LMDB maps the file; reading a missing page would crash the process.
            size = (self.environment.info()["last_pgno"] + 1) * status["psize"]
            file = path / "data.mdb" if path.is_dir() else path
            if file.stat().st_size < size:
                raise ValueError(
                    f"{file} is truncated: it has {file.stat().st_size:,} bytes of {size:,}"
                )
            if not self.entries:
                raise ValueError(f"{path} contains no image")
            with self.environment.begin() as transaction, transaction.cursor() as cursor:
                ends = [cursor.key() for move in (cursor.first, cursor.last) if move()]
        where, names = (path, ["data.mdb"]) if path.is_dir() else (path.parent, [path.name])
        self.description = (
            f"{self.entries} entries from {ends[0]!r} to {ends[1]!r}, "
            f"checksum {checksum(where, names):08x}"
        )

    def __len__(self) -> int:
        return self.entries

    def images_from(self, start: int) -> Iterator[SourceImage]:
        """See :class:`DataSource`.

        Raises:
            ValueError: a page is damaged.
        """
        begin = self.environment.begin
        with self._readable(), begin() as transaction, transaction.cursor() as cursor:
            # This does not read the skipped images, which are in separate pages.
            found = cursor.first() and all(cursor.next() for _ in range(start))
            while found:
                yield SourceImage(cursor.key().decode("utf-8", "replace"), cursor.value())
                found = cursor.next()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn errors of LMDB into ValueError."""
        try:
            yield
        except self.error as error:
            raise ValueError(f"{self.path} cannot be read as an LMDB: {error}") from error


class HubDataset(DataSource):
    """A split of a data set on the Hugging Face hub, or of a folder that ``datasets`` can load.

    Args:
        name: of the data set, or the folder.
        split: in the notation of ``datasets``: ``train``, ``train[:1000]``.
        column: that contains the images; None if there is only one such column.

    Raises:
        ImportError: the package ``datasets`` is not installed.
        ValueError: it cannot be loaded, or ``column`` is not one of its image columns.
    """

    def __init__(self, name: str, split: str, column: str | None = None) -> None:
        datasets = import_from_extra("datasets")
        try:
            rows = datasets.load_dataset(name, split=split)
        except Exception as error:  # of many types, from the network and the files
            raise ValueError(f"cannot load the split {split!r} of {name!r}: {error}") from error
        kinds = rows.features.items()
        columns = [key for key, kind in kinds if isinstance(kind, datasets.Image)]
        if column is None and len(columns) == 1:
            column = columns[0]
        if column not in columns:
            raise ValueError(
                f"column must be one of {name}'s image columns "
                f"({', '.join(columns) or 'it has none'}), got {column}"
            )
        self.column = column
        self.rows: Any = rows.select_columns([column]).cast_column(
            column, datasets.Image(decode=False)
        )
        self.description = (
            f"{len(rows)} rows, split {split}, column {column} of {name}, "
            f"fingerprint {rows._fingerprint}"  # not public, but the key of the cache of datasets
        )

    def __len__(self) -> int:
        return len(self.rows)

    def images_from(self, start: int) -> Iterator[SourceImage]:
        """See :class:`DataSource`."""
        for row in range(start, len(self.rows)):
            cell = self.rows[row][self.column] or {}
            path = cell.get("path")
            data = cell.get("bytes") or (Path(path) if path else b"")
            yield SourceImage(f"row {row}", data)


def import_from_extra(module: str) -> Any:
    """Import a module of the extra ``data``.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"reading this data set needs {module}: pip install 'prsr[data]'"
        ) from error
