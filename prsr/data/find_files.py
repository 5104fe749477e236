"""Find image files in folders; report which files are skipped."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from PIL import Image

from prsr.utils.terminal_messages import Notice, printable

UNREADABLE_FORMATS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
"""Formats that Pillow identifies but cannot decode by itself; EPS would start Ghostscript."""

NAMES_SHOWN = 3
"""Number of skipped files that are named for each reason."""


@lru_cache
def readable_suffixes() -> frozenset[str]:
    """The lower-case suffixes of the formats that this Pillow decodes, such as ``.png``."""
    Image.init()
    formats = ({*Image.OPEN} | {"MPO"}) - UNREADABLE_FORMATS  # MPO is opened as JPEG
    return frozenset(s for s, name in Image.registered_extensions().items() if name in formats)


def find_images(paths: Iterable[str | Path], exclude: Path | None = None) -> list[Path]:
    """Find image files; a folder means all image files in it and its subfolders, sorted by name.

    In a folder, files with one of the :func:`readable_suffixes` are found. Hidden files and folders
    are skipped. Links to folders are followed, but each folder is read once. A warning counts the
    skipped files and names some.

    Args:
        paths: files and folders.
        exclude: a subfolder to skip.

    Raises:
        FileNotFoundError: a path does not exist, or a folder contains no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += search_folder(path, exclude)
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"no such image or folder: {path}")
    return found


def search_folder(folder: Path, exclude: Path | None) -> list[Path]:
    """Find the image files in a folder and its subfolders; see :func:`find_images`."""
    skipped: dict[str, list[str]] = {}
    images = []
    for path in files_below(folder, exclude, skipped):
        reason = reason_to_skip(path)
        if reason:
            skipped.setdefault(reason, []).append(str(path.relative_to(folder)))
        else:
            images.append(path)
    summary = "; ".join(counted(reason, names) for reason, names in sorted(skipped.items()))
    if not images:
        raise FileNotFoundError(f"no image in folder {folder}" + (summary and f": {summary}"))
    if summary:
        warnings.warn(printable(f"skipped in {folder}: {summary}"), Notice, stacklevel=3)
    return sorted(images)


def counted(reason: str, names: list[str]) -> str:
    """The number of skipped files, the reason and some of the names."""
    named = ", ".join(sorted(names)[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {reason} ({named}{more})"


def reason_to_skip(path: Path) -> str:
    """Why a file in a folder is skipped; empty if it is an image."""
    if path.name.startswith("."):
        return "hidden"
    if path.suffix.lower() not in readable_suffixes():
        return "not in a readable image format"
    return "" if path.is_file() else "not a file, or a broken link"


def files_below(
    folder: Path, exclude: Path | None, skipped: dict[str, list[str]]
) -> Iterator[Path]:
    """Files in a folder and its subfolders, each once; adds skipped folders to ``skipped``."""
    excluded = exclude.resolve() if exclude and exclude.resolve() != folder.resolve() else None

    def note(reason: str, path: str | Path) -> None:
        skipped.setdefault(reason, []).append(os.path.relpath(path, folder))

    def unlisted(error: OSError) -> None:
        note(f"that cannot be listed: {error.strerror}", error.filename)

    def identity(path: Path) -> tuple[int, int]:
        status = path.stat()
        return status.st_dev, status.st_ino

    seen = {identity(folder)}
    for root, folders, files in os.walk(folder, followlinks=True, onerror=unlisted):
        kept = []
        for name in sorted(folders):
            subfolder = Path(root, name)
            if name.startswith("."):
                note("hidden", subfolder)
            elif identity(subfolder) in seen:
                note("read already under another name", subfolder)
            elif subfolder.resolve() != excluded:
                seen.add(identity(subfolder))
                kept.append(name)
        folders[:] = kept
        yield from (Path(root, name) for name in files)
