"""matplotlib without a backend: figures here are files, and no window or notebook shows them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module


def load_matplotlib() -> None:
    """Import matplotlib, whatever ``MPLBACKEND`` says.

    Notebooks and IDEs leave names in that variable that only they know, and matplotlib then cannot
    be imported by the programs that they start.

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
