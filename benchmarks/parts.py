"""Archives split into files of limited size, for machines that return only small files.

An archive ``name`` is the files ``name.tar.0``, ``name.tar.1`` and so on, which
``cat name.tar.* | tar -x`` unpacks if there are at most ten. Standard library only.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PART_BYTES = 15 * 2**20
"""The largest size of a part."""


def write_file(path: Path, data: bytes) -> None:
    """Write a file atomically, replacing an existing one.

    Raises:
        OSError: it cannot be written; an existing file is unchanged.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class PartWriter(io.RawIOBase):
    """A stream that is written as ``name.tar.0``, ``name.tar.1`` and so on.

    Attributes:
        count: number of parts so far.
        digest: SHA-256 of the stream so far.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.count = 0
        self.digest = hashlib.sha256()
        self.waiting = bytearray()

    def write(self, data: bytes) -> int:  # type: ignore[override]  # tarfile writes bytes
        """Append data to the stream."""
        self.digest.update(data)
        self.waiting += data
        while len(self.waiting) >= PART_BYTES:
            self.emit(PART_BYTES)
        return len(data)

    def emit(self, size: int) -> None:
        """Write the next part."""
        write_file(self.folder / f"{self.name}.tar.{self.count}", bytes(self.waiting[:size]))
        del self.waiting[:size]
        self.count += 1

    def finish(self) -> None:
        """Write the last part, and remove those of an earlier, longer archive."""
        if self.waiting:
            self.emit(len(self.waiting))
        extra = self.count
        while (stale := self.folder / f"{self.name}.tar.{extra}").exists():
            stale.unlink()
            extra += 1


def write_archive(
    folder: Path, name: str, root: Path, files: Iterable[Path]
) -> dict[str, int | str]:
    """Write an archive of files, named relative to ``root``; missing files are left out.

    Returns:
        ``parts`` and ``sha256``, which :func:`read_archive` checks.

    Raises:
        OSError: it cannot be written.
    """
    writer = PartWriter(folder, name)
    with tarfile.open(fileobj=writer, mode="w|") as archive:
        for path in files:
            # Open first: the file may be replaced by one of another size.
            with suppress(FileNotFoundError), path.open("rb") as file:
                entry = archive.gettarinfo(arcname=str(path.relative_to(root)), fileobj=file)
                archive.addfile(entry, file)
    writer.finish()
    return {"parts": writer.count, "sha256": writer.digest.hexdigest()}


def read_archive(folder: Path, name: str, about: dict[str, int | str], into: Path) -> None:
    """Unpack an archive.

    Args:
        folder: that contains its parts.
        name: of the archive.
        about: the result of :func:`write_archive`.
        into: folder to unpack to.

    Raises:
        ValueError: the parts are not those that were written together.
        OSError: a part is missing, or a file cannot be written.
    """
    parts = [folder / f"{name}.tar.{number}" for number in range(int(about["parts"]))]
    data = b"".join(part.read_bytes() for part in parts)
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise ValueError(f"{folder / name}.tar.* do not belong together, or are damaged")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(into, filter="data")
