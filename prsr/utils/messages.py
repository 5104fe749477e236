"""What people are told: names that can always be printed, and warnings."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Notice(UserWarning):
    """Something that goes on otherwise than the caller may expect."""


def printable(text: str) -> str:
    """Text that may hold names of files, for people to read: what cannot be printed is escaped.

    Names may have bytes that are not UTF-8 (Python holds them as lone surrogates), and control
    characters.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


@contextmanager
def on_terminal() -> Iterator[None]:
    """Print what the terminal cannot show as an escape sequence, and notices as single lines.

    A name, or a warning that Python was told to raise, must not end a command whose work is done.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, Notice):
            print(f"prsr: {message}", file=sys.stderr)
        else:
            usual(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        warnings.showwarning = show
        yield
