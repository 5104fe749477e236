"""Connections and transactions of SQLite, for writing and for reading."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUSY_SECONDS = 30.0
"""To wait for another writer."""


def connect(path: Path, *, durable: bool = True) -> sqlite3.Connection:
    """A connection to a database in WAL mode that commits when :func:`transaction` ends.

    Args:
        path: of the file.
        durable: a commit waits for the disk. Without, a power failure may undo the last commits,
            but only together with all that follow.

    Raises:
        PermissionError: the file or its folder is not writable.
    """
    if not is_writable(path):
        raise PermissionError(f"{path} and its folder must be writable")
    database = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    database.execute("PRAGMA foreign_keys = ON")
    return database


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection for reading, which works on read-only storage.

    SQLite keeps two files beside a database in WAL mode. It cannot create them there, unless the
    database is opened as immutable. That is correct only without a WAL file, which holds commits
    that are not in the database yet.
    """
    if is_writable(path):
        return connect(path)
    wal = path.with_name(f"{path.name}-wal")
    option = "mode=ro" if wal.exists() else "immutable=1"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{option}", timeout=BUSY_SECONDS, isolation_level=None, uri=True
    )


def is_writable(path: Path) -> bool:
    """Whether a file and its folder are writable."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock; commit at the end, or undo everything on an error."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
