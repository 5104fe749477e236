"""Versions, machine, engines and bundled models: the tables of ``prsr info``."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from importlib.metadata import version

import torch

from prsr.config import PRESETS
from prsr.engines import cuda
from prsr.engines.native import chosen_instruction_set, instruction_sets
from prsr.engines.registry import PRECISIONS, list_engines
from prsr.models.model_files import BUNDLED, CONFIG_FILE, bundled_models, read_description

PACKAGES = ("prsr", "numpy", "safetensors", "huggingface_hub", "pillow")

MANY_IMAGES = 2048
"""A batch large enough to occupy any GPU."""


def devices() -> list[torch.device]:
    """The CPU and every GPU visible to torch."""
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [torch.device("cpu"), *gpus]


def describe_device(device: torch.device) -> str:
    """A one-line description of a device.

    A GPU's name and the CUDA version; for the CPU its cores, torch's number of threads and its
    vector instruction set.
    """
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    vectors = torch.backends.cpu.get_cpu_capability()
    return f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads, {vectors}"


def cuda_build() -> list[tuple[str, str]]:
    """Name and value of each fact about the extension ``prsr._cuda`` and the GPUs visible to it."""
    try:
        extension = import_module("prsr._cuda")
    except ModuleNotFoundError:
        return [("CUDA build", "not built: needs nvcc (PRSR_BUILD_CUDA=1 requires the build)")]
    except ImportError as error:
        return [("CUDA build", f"cannot be loaded: {error}")]
    codes = extension.architectures()
    rows = [("CUDA build", f"CUDA {extension.version()}, {', '.join(codes)}, PTX for {codes[-1]}")]
    try:
        gpus = extension.devices()
    except RuntimeError as error:
        return [*rows, ("CUDA devices", f"no device: {error}")]
    for index, (name, (major, minor), memory) in enumerate(gpus):
        capability = f"compute capability {major}.{minor}"
        rows.append((f"CUDA device {index}", f"{name}, {capability}, {memory / 2**30:.1f} GiB"))
    return rows


def engine_states() -> list[tuple[str, str, str, str]]:
    """Device, engine, precisions and their state, for a model of the preset ``paper``.

    The state is "ready", or the reasons why the engine cannot be used. Precisions of the same state
    share a row.
    """
    rows = []
    for device in devices():
        found = {precision: list_engines(None, device, precision) for precision in PRECISIONS}
        for name in found[PRECISIONS[0]]:
            states: dict[str, list[str]] = {}
            for precision, reasons in found.items():
                states.setdefault("; ".join(reasons[name]) or "ready", []).append(precision)
            rows += [
                (str(device), name, ", ".join(precisions), state)
                for state, precisions in states.items()
            ]
    return rows


def cuda_variants() -> list[tuple[str, str, str, str]]:
    """Device, precision, number of images and the kernels of the engine ``cuda`` that serve them.

    They are those of the preset ``paper``; empty if the engine serves no device.
    """
    config = PRESETS["paper"]
    rows = []
    for device in devices():
        for precision in PRECISIONS:
            if list_engines(config, device, precision)["cuda"]:
                continue
            for images in 1, MANY_IMAGES:
                try:
                    variant = cuda.describe(config, device, precision, images)
                except RuntimeError as error:
                    variant = str(error)
                rows.append((str(device), precision, f"{images} image(s)", variant))
    return rows


def describe_instruction_sets() -> str:
    """The instruction sets that the engine ``cpu`` can use here, and the one in use."""
    if not instruction_sets():
        return "not built"
    try:
        in_use = f"{chosen_instruction_set()} in use"
    except ValueError as error:  # PRSR_INSTRUCTION_SET names none of them
        in_use = str(error)
    return f"{', '.join(instruction_sets())}; {in_use}"


def environment_tables() -> dict[str, list[tuple[str, ...]]]:
    """The tables that ``prsr info`` prints: rows of cells by heading."""
    variants: list[tuple[str, ...]] = list(cuda_variants())
    return {
        "Versions": [
            ("python", platform.python_version()),
            ("torch", torch.__version__),  # with the CUDA version, which its metadata may omit
            *((package, version(package)) for package in PACKAGES),
        ],
        "Machine": [
            ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
            *((str(device), describe_device(device)) for device in devices()),
            ("instruction sets of engine cpu", describe_instruction_sets()),
            *cuda_build(),
        ],
        "Engines": list(engine_states()),
        **({"Kernels of engine cuda, preset paper": variants} if variants else {}),
        "Bundled models": [
            (name, ", ".join(f"{k} {v}" for k, v in read_description(path)[1].to_dict().items()))
            for name in bundled_models()
            for path in [BUNDLED / name / CONFIG_FILE]
        ],
    }
