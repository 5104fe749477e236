"""Import matplotlib without an interactive backend: plots are only written to files."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module


def load_matplotlib() -> None:
    """Import matplotlib, ignoring ``MPLBACKEND`` while it is imported.

    Notebooks and IDEs set that variable to backends of their own, with which matplotlib cannot be
    imported in other processes.

    Raises:
        ImportError: it is not installed.
    """
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        matplotlib = import_module("matplotlib")
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend is not None:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
