"""Atomic file writes, and checks that a path can be written."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prsr.utils.terminal_messages import printable

UNFINISHED = ".writing-"
"""Prefix of the names of temporary files."""

UNSUPPORTED = frozenset(
    {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENODEV}
)
"""Error codes with which file systems reject calls that they do not implement."""


@contextmanager
def suppress_unsupported() -> Iterator[None]:
    """Ignore the error of a call that the file system does not implement."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def flush_to_disk(descriptor: int) -> None:
    """Flush a file to the disk, if its file system supports that.

    Raises:
        OSError: writing failed.
    """
    with suppress_unsupported():
        os.fsync(descriptor)


def check_file(path: Path) -> None:
    """Check that a file can be written to ``path``, as far as possible without writing it.

    Raises:
        IsADirectoryError: a folder has that name.
        FileNotFoundError: its folder does not exist.
        PermissionError: its folder is not writable.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; it must be a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} to")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"cannot write to the folder {path.parent}")


def check_utf8(path: Path) -> None:
    """Check that a path is UTF-8, as safetensors and TensorBoard require.

    Raises:
        ValueError: it is not.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{printable(str(path))} is not UTF-8, so no model can be written there: choose "
            "another folder"
        ) from error


def check_folder(path: Path) -> None:
    """Check that ``path`` is a writable folder or can become one, by writing a temporary file.

    Raises:
        NotADirectoryError: it is a file, or inside one.
        PermissionError: it is not writable, or cannot be created.
    """
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"{path} must be a folder or a new name, but {existing} is a file")
    try:
        # os.access is not reliable on every file system.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise PermissionError(f"cannot write to the folder {existing}: {error.strerror}") from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path`` atomically.

    The temporary name keeps the suffix, because libraries choose the format by it. On an error
    the temporary file is removed and the file at ``path`` is unchanged.

    Raises:
        OSError: the folder does not exist or is not writable.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=UNFINISHED, suffix=target.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp creates private files; the result should have the usual mode.
        umask = os.umask(0)
        os.umask(umask)
        with suppress(OSError):  # not every file system supports modes
            temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as written:
            flush_to_disk(written.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove temporary files of killed processes from a folder in which no process is writing."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
