"""What is installed and what this machine can do: the facts behind ``prsr info``."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from importlib.metadata import version

import torch

from prsr.engines.cpu import chosen_instruction_set, instruction_sets
from prsr.engines.registry import PRECISIONS, list_engines
from prsr.models.saved import BUNDLED, CONFIG_FILE, bundled_models, read_description

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


def cuda_build() -> list[tuple[str, str]]:
    """What the extension ``_cuda`` was built for, and the GPUs that it sees."""
    try:
        cuda = import_module("prsr._cuda")
    except ModuleNotFoundError:
        return [("CUDA build", "not built: it takes nvcc, and PRSR_BUILD_CUDA=1 insists on it")]
    except ImportError as error:
        return [("CUDA build", f"does not load: {error}")]
    codes = cuda.architectures()
    rows = [("CUDA build", f"CUDA {cuda.version()}, {', '.join(codes)}, PTX of {codes[-1]}")]
    try:
        gpus = cuda.devices()
    except RuntimeError as error:
        return [*rows, ("CUDA devices", f"no device: {error}")]
    for index, (name, (major, minor), memory) in enumerate(gpus):
        capability = f"compute capability {major}.{minor}"
        rows.append((f"CUDA device {index}", f"{name}, {capability}, {memory / 2**30:.1f} GiB"))
    return rows


def engine_states() -> list[tuple[str, str, str, str]]:
    """(device, engine, precision, "ready" or the reasons why not), for the preset ``paper``."""
    return [
        (str(device), name, precision, "; ".join(reasons) or "ready")
        for device in devices()
        for precision in PRECISIONS
        for name, reasons in list_engines(None, device, precision).items()
    ]


def describe_instruction_sets() -> str:
    """Those that are here, and which of them serves."""
    if not instruction_sets():
        return "not built"
    try:
        serves = f"{chosen_instruction_set()} serves"
    except ValueError as error:
        serves = str(error)
    return f"{', '.join(instruction_sets())}; {serves}"


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
            ("instruction sets of engine cpu", describe_instruction_sets()),
            *cuda_build(),
        ],
        "Engines": list(engine_states()),
        "Bundled models": [
            (name, ", ".join(f"{k} {v}" for k, v in read_description(path)[1].to_dict().items()))
            for name in bundled_models()
            for path in [BUNDLED / name / CONFIG_FILE]
        ],
    }
