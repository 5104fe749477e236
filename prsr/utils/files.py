"""Writing files so that a reader, or a kill at any moment, never meets half of one."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prsr.utils.messages import printable

UNFINISHED = ".writing-"
"""How the names begin of what is being written."""

UNSUPPORTED = frozenset(
    {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENODEV}
)
"""What file systems say of a call that they do not have."""


@contextmanager
def suppress_unsupported() -> Iterator[None]:
    """Go on without a call that the file system does not have."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def synchronise(descriptor: int) -> None:
    """Come back when the disk has a file, where its file system can tell.

    Raises:
        OSError: the disk has not got all of it.
    """
    with suppress_unsupported():
        os.fsync(descriptor)


def check_file(path: Path) -> None:
    """A file can be written to ``path``, as far as can be told before there is one.

    Raises:
        IsADirectoryError: a folder has that name.
        FileNotFoundError: there is no folder to write it to.
        PermissionError: the folder cannot be written to.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: a file was to be written there")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} to")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"cannot write to the folder {path.parent}")


def check_utf8(path: Path) -> None:
    """A path is UTF-8, as safetensors and TensorBoard will have it.

    Raises:
        ValueError: it is not.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{printable(str(path))} is not UTF-8, and no model can be written there: choose "
            "another folder"
        ) from error


def check_folder(path: Path) -> None:
    """``path`` is a folder, or one can be made there, and files can: it is tried.

    Raises:
        NotADirectoryError: it is a file, or lies below one.
        PermissionError: it cannot be written to, or not be made.
    """
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{path} must be a folder or a new name, but {there} is a file")
    try:
        # Not all file systems let os.access know; this file has no name, or none for long.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise PermissionError(f"cannot write to the folder {there}: {error.strerror}") from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path`` in one step.

    The temporary name keeps the suffix, from which libraries tell the format. On an error
    nothing is left behind, and what stood at ``path`` stays as it was.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=UNFINISHED, suffix=target.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; a result should be as readable as any other new file.
        umask = os.umask(0)
        os.umask(umask)
        with suppress(OSError):  # not every file system has modes
            temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as written:
            synchronise(written.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder; no other may be at work there."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
