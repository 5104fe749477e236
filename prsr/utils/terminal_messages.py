"""Messages for users: warnings, and text that every terminal can print."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Notice(UserWarning):
    """A warning about behaviour that the caller may not expect."""


def printable(text: str) -> str:
    """Text with its unprintable characters escaped.

    File names may contain control characters, and bytes that are not UTF-8, which Python represents
    as lone surrogates.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


@contextmanager
def on_terminal() -> Iterator[None]:
    """Escape characters that the terminal cannot encode, and print each :class:`Notice` as a line.

    Neither a file name nor a warning that Python was told to raise may abort a command.
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
