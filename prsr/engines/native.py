"""The extension ``prsr._native``: C++ kernels for several instruction sets, without torch.

The engine ``cpu``, the conditioning network in C++ and the comparison of weights share it.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

USED = frozenset({
    "ConditioningConfig", "ConditioningJob", "Job", "PriorConfig", "Weights", "condition",
    "draw_rows", "instruction_sets", "same_memory", "strips", "tiles",
})  # fmt: skip
"""Names that the package uses of the extension."""


def built_from_other_sources(module: ModuleType) -> str:
    """Why an extension does not fit this package; empty if it does.

    An editable installation keeps its extension when the sources change.
    """
    missing = sorted(USED - set(dir(module)))
    if not missing:
        return ""
    return (
        f"its extension was built from other sources (it has no {', '.join(missing)}): "
        "install prsr again, as it was installed before"
    )


extension: ModuleType | None = None
"""The extension, or None if it cannot be used."""

absence = ""
"""Why there is no extension, as a clause about an engine."""

try:
    extension = import_module("prsr._native")
    if absence := built_from_other_sources(extension):
        extension = None
except ModuleNotFoundError:
    absence = (
        "its extension was not built: installing prsr requires a C++ compiler for it (apt install "
        "g++), and PRSR_BUILD_NATIVE=1 pip install … shows what fails"
    )
except ImportError as error:
    absence = f"its extension does not load: {error}"

INSTRUCTION_SET = "PRSR_INSTRUCTION_SET"
"""The environment variable that forces one of :func:`instruction_sets`."""


def loaded() -> ModuleType:
    """The extension, which must not be absent."""
    assert extension is not None
    return extension


def instruction_sets() -> list[str]:
    """Those that the extension has and this machine can run; the last is the default."""
    return [] if extension is None else list(extension.instruction_sets())


def chosen_instruction_set() -> str:
    """The default, or the one that ``PRSR_INSTRUCTION_SET`` names.

    Raises:
        ValueError: it is not available.
    """
    names = instruction_sets()
    wanted = os.environ.get(INSTRUCTION_SET) or names[-1]
    if wanted not in names:
        raise ValueError(
            f"{INSTRUCTION_SET} must be one of {', '.join(names)} on this machine, got {wanted!r}"
        )
    return wanted


def problem() -> str:
    """Why the kernels cannot run here, as a clause about an engine; empty if they can."""
    if extension is None:
        return absence
    try:
        chosen_instruction_set()
    except ValueError as error:
        return str(error)
    return ""


def same_memory(first: list[int], second: list[int], sizes: list[int]) -> bool:
    """Whether arrays are equal, given their addresses in two lists and their sizes in bytes.

    The extension must not be absent.
    """
    extension = loaded()
    return bool(extension.same_memory(first, second, sizes))
