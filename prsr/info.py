"""What is installed and what this machine can do: the facts behind ``prsr info``."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import torch

from prsr.checkpoint import BUNDLED, CONFIG_FILE, bundled_models, read_config
from prsr.engines import PRECISIONS, engines
from prsr.engines.native import instruction_sets

LIBRARIES = ("prsr", "torch", "numpy", "safetensors", "huggingface_hub", "pillow")


def devices() -> list[torch.device]:
    """The CPU, and every GPU that torch sees."""
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [torch.device("cpu"), *gpus]


def describe_device(device: torch.device) -> str:
    """A device in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    vectors = torch.backends.cpu.get_cpu_capability()
    return f"{os.cpu_count()} cores, {torch.get_num_threads()} threads for torch, {vectors}"


def engine_states() -> list[tuple[str, str, str, str]]:
    """(device, engine, precision, "ready" or the reasons why not), for the preset ``paper``."""
    return [
        (str(device), name, precision, "; ".join(reasons) or "ready")
        for device in devices()
        for precision in PRECISIONS
        for name, reasons in engines(None, device, precision).items()
    ]


def facts() -> dict[str, list[tuple[str, ...]]]:
    """Tables by heading, for ``prsr info`` to print."""
    return {
        "Versions": [
            ("python", platform.python_version()),
            *((library, version(library)) for library in LIBRARIES),
        ],
        "Machine": [
            ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
            *((str(device), describe_device(device)) for device in devices()),
            ("instruction sets of engine cpu", ", ".join(instruction_sets()) or "not built"),
        ],
        "Engines": list(engine_states()),
        "Bundled models": [
            (name, ", ".join(f"{k} {v}" for k, v in read_config(path).to_dict().items()))
            for name in bundled_models()
            for path in [BUNDLED / name / CONFIG_FILE]
        ],
    }
