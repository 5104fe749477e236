"""Image files in folders: which are taken, in which order, and what is passed over."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from PIL import Image

from prsr.utils.messages import Notice, printable

UNREADABLE_FORMATS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow knows but does not decode by itself; EPS would start Ghostscript."""

NAMED = 3
"""How many of the files are named that are passed over for one reason."""


@lru_cache
def readable_suffixes() -> frozenset[str]:
    """The suffixes of the formats that Pillow decodes here, ``.png`` among them, in lower case."""
    Image.init()
    formats = ({*Image.OPEN} | {"MPO"}) - UNREADABLE_FORMATS  # MPO is opened as JPEG
    return frozenset(s for s, name in Image.registered_extensions().items() if name in formats)


def find_images(paths: Iterable[str | Path], outside: Path | None = None) -> list[Path]:
    """Image files among ``paths``; a folder stands for those in it and below, sorted by name.

    In a folder, files are taken whose suffix is one of :func:`readable_suffixes`. Hidden files and
    folders are passed over. Linked folders are followed; each folder is read once. A warning
    counts what was passed over and names some of it.

    Args:
        paths: files and folders.
        outside: a folder to leave out where it lies below one of them.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += search(path, outside)
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"no such image or folder: {path}")
    return found


def search(folder: Path, outside: Path | None) -> list[Path]:
    """Image files in ``folder`` and below it: see :func:`find_images`."""
    passed_over: dict[str, list[str]] = {}
    images = []
    for path in files_below(folder, outside, passed_over):
        reason = why_not(path)
        if reason:
            passed_over.setdefault(reason, []).append(str(path.relative_to(folder)))
        else:
            images.append(path)
    told = "; ".join(described(reason, names) for reason, names in sorted(passed_over.items()))
    if not images:
        raise FileNotFoundError(f"no image in folder {folder}" + (told and f": {told}"))
    if told:
        warnings.warn(printable(f"passed over in {folder}: {told}"), Notice, stacklevel=3)
    return sorted(images)


def described(reason: str, names: list[str]) -> str:
    """A reason, and the names that it holds for."""
    named = ", ".join(sorted(names)[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {reason} ({named}{more})"


def why_not(path: Path) -> str:
    """Why a file in a folder is not taken for an image; empty if it is."""
    if path.name.startswith("."):
        return "hidden"
    if path.suffix.lower() not in readable_suffixes():
        return "of no image format that can be read"
    return "" if path.is_file() else "not a file, or a broken link"


def files_below(
    folder: Path, outside: Path | None, passed_over: dict[str, list[str]]
) -> Iterator[Path]:
    """Files in a folder and in those below it, each folder once; notes folders that are left."""
    left = outside.resolve() if outside and outside.resolve() != folder.resolve() else None

    def note(reason: str, path: str | Path) -> None:
        passed_over.setdefault(reason, []).append(os.path.relpath(path, folder))

    def unlisted(error: OSError) -> None:
        note(f"that cannot be listed: {error.strerror}", error.filename)

    def identity(path: Path) -> tuple[int, int]:
        status = path.stat()
        return status.st_dev, status.st_ino

    seen = {identity(folder)}
    for root, folders, files in os.walk(folder, followlinks=True, onerror=unlisted):
        kept = []
        for name in sorted(folders):
            below = Path(root, name)
            if name.startswith("."):
                note("hidden", below)
            elif identity(below) in seen:
                note("read already under another name", below)
            elif below.resolve() != left:
                seen.add(identity(below))
                kept.append(name)
        folders[:] = kept
        yield from (Path(root, name) for name in files)
