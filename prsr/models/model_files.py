"""Files of saved models: safetensors and ``config.json``, and the models in the package.

Never pickle: no byte of a checkpoint is executed, and no memory is allocated before the
configuration and the shapes of all tensors have been checked.
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
"""The method of a model whose ``config.json`` does not name one."""


def bundled_models() -> list[str]:
    """Names of the bundled models, for ``PRSR.from_pretrained``."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{WEIGHTS_FILE}"))


def bundled_inputs(name: str) -> torch.Tensor:
    """Low-resolution test images of the bundled model ``name``, not used in its training.

    Returns:
        ``uint8 [N, D, h, w]``.
    """
    return torch.from_numpy(np.load(BUNDLED / name / "inputs.npy", allow_pickle=False))


def read_description(path: Path) -> tuple[str, PRSRConfig]:
    """The method and the configuration in a ``config.json``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a valid configuration.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: not a saved prsr model")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, Mapping):
            raise ValueError("not a JSON object")
        method = values.get("method", DEFAULT_METHOD)
        numbers = {name: value for name, value in values.items() if name != "method"}
        return method, PRSRConfig.from_dict(numbers)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not a valid configuration: {error}") from error


def read_weights(path: Path, model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, checked against the names and shapes of ``model``.

    ``model`` may be on the meta device: only names and shapes are used.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or its tensors are not those of the model.
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
                raise ValueError(f"{path}: tensor {name!r} has an unexpected dtype: {kinds[name]}")
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
        OSError: it cannot be written completely.
    """
    try:
        save_file({name: t.contiguous() for name, t in tensors.items()}, path, metadata)
    except SafetensorError as error:  # raised on a full disk
        raise OSError(f"cannot write a checkpoint to {path.parent}: {error}") from error
