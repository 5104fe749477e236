"""Models on disk and on the Hugging Face hub: safetensors and a readable ``config.json``.

Never pickle: reading a checkpoint runs none of its bytes, and nothing is allocated before its
configuration and the shapes of its tensors are known to fit each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from prsr.config import PRSRConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
BUNDLED = Path(__file__).parent / "pretrained"

DEFAULT_MODEL = "portraits"
DEFAULT_METHOD = "recursive"
"""Of a model whose ``config.json`` names none."""


def bundled_models() -> list[str]:
    """Names of the models that come with the package, for ``PRSR.from_pretrained``."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{WEIGHTS_FILE}"))


def bundled_inputs(name: str) -> torch.Tensor:
    """Low-resolution images that the bundled model ``name`` was not trained on.

    Returns:
        ``uint8 [N, D, h, w]``.
    """
    return torch.from_numpy(np.load(BUNDLED / name / "inputs.npy", allow_pickle=False))


def read_description(path: Path) -> tuple[str, PRSRConfig]:
    """The method and the configuration in a ``config.json``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it does not hold a valid configuration.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: not a saved prsr model")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, Mapping):
            raise ValueError("it holds no object")
        method = values.get("method", DEFAULT_METHOD)
        numbers = {name: value for name, value in values.items() if name != "method"}
        return method, PRSRConfig.from_dict(numbers)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a valid configuration: {error}") from error


def read_weights(path: Path, model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, which must be those of ``model`` by name and shape.

    ``model`` may lie on the meta device: only its names and shapes are looked at.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds other tensors than the model has.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent} (prsr reads safetensors only)")
    expected = {name: list(value.shape) for name, value in model.state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (no iterator)
            found = {name: tensor.get_shape() for name, tensor in slices.items()}
            kinds = {name: tensor.get_dtype() for name, tensor in slices.items()}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise ValueError(
                    f"{path} does not fit its configuration: tensor {name!r} should be "
                    f"{expected.get(name, 'absent')}, is {found.get(name, 'absent')}"
                )
        for name, value in model.state_dict().items():
            if value.is_floating_point() != ("F" in kinds[name]):
                raise ValueError(f"{path}: tensor {name!r} has a strange dtype: {kinds[name]}")
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}") from error
    except OSError as error:
        raise OSError(f"cannot read {path}: {error}") from error


def write_tensors(
    tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file.

    Raises:
        OSError: it cannot be written, or not all of it.
    """
    try:
        save_file({name: t.contiguous() for name, t in tensors.items()}, path, metadata)
    except SafetensorError as error:  # its word for a full disk
        raise OSError(f"cannot write a checkpoint to {path.parent}: {error}") from error
