"""Models on disk and on the Hugging Face hub: safetensors and a readable ``config.json``.

Never pickle: reading a checkpoint runs none of its bytes, and nothing is allocated before its
configuration and the shapes of its tensors are known to fit each other.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from huggingface_hub import HfApi, ModelHubMixin, hf_hub_download, try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from typing_extensions import Self

from prsr.config import PRSRConfig
from prsr.exact import own_defaults
from prsr.files import UNFINISHED, check_utf8, replacing

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
BUNDLED = Path(__file__).parent / "pretrained"
WRAPPERS = ("_orig_mod", "module")
"""What a module is called inside of ``torch.compile``'s wrapper, and in those for several GPUs."""

DEFAULT_MODEL = "portraits"
HUB_OPTIONS = signature(hf_hub_download).parameters.keys() - {"repo_id", "filename"}


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
        method = values.get("method", HubModel.method)
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


def locate(name: str | Path, **hub_options: Any) -> tuple[Path, Path]:
    """Where configuration and weights of a bundled name, a folder or a hub id lie on disk.

    Raises:
        FileNotFoundError: it is none of these, or the hub cannot be reached.
    """
    source = str(name)
    folder = BUNDLED / source if source in bundled_models() else Path(source)
    if folder.is_dir():
        if not (folder / CONFIG_FILE).is_file() and (folder / "model" / CONFIG_FILE).is_file():
            raise FileNotFoundError(
                f"{source} is the folder of a run; its model is {folder / 'model'}"
            )
        return folder / CONFIG_FILE, folder / WEIGHTS_FILE
    if folder.parent.is_dir() and folder.parent != Path():
        raise FileNotFoundError(f"no folder {source}")
    absent = f"{source!r} is no bundled model ({', '.join(bundled_models()) or 'none'}), no folder"
    if source.count("/") != 1 or source.startswith((".", "~")):
        raise FileNotFoundError(f"{absent}, and no id on the hub, which is owner/name")
    try:
        return download(source, **hub_options)
    except Exception as error:  # of many kinds: the hub's client does not keep to one library
        told = type(error).__name__, *str(error).splitlines()[:1]
        raise FileNotFoundError(f"{absent}, and the hub said {': '.join(told)}") from error


def download(repo_id: str, **hub_options: Any) -> tuple[Path, Path]:
    """Configuration and weights of a model on the hub, in the hub's cache."""
    place = {key: hub_options[key] for key in ("revision", "cache_dir") if key in hub_options}
    cached = isinstance(try_to_load_from_cache(repo_id, CONFIG_FILE, **place), str)
    if not cached and not hub_options.get("local_files_only"):
        # Once, for hf_hub_download asks a hub that is out of reach again and again: 23 seconds.
        HfApi(endpoint=hub_options.get("endpoint"), token=hub_options.get("token")).model_info(
            repo_id, revision=hub_options.get("revision"), timeout=10
        )
    config, weights = (
        Path(hf_hub_download(repo_id=repo_id, filename=file, **hub_options))
        for file in (CONFIG_FILE, WEIGHTS_FILE)
    )
    return config, weights


def shape_text(shape: torch.Size | None) -> str:
    """A shape, or that there is none."""
    return "absent" if shape is None else str(list(shape))


class HubModel(
    nn.Module,
    ModelHubMixin,
    library_name="prsr",
    paper_url="https://arxiv.org/abs/1702.00783",
    tags=["super-resolution", "autoregressive", "pixelcnn"],
):
    """A module that is defined by a :class:`PRSRConfig`, with ``from_pretrained`` and the like."""

    method: ClassVar[str] = "recursive"
    """What ``prsr train --method`` calls it; in ``config.json`` unless it is this one."""

    def __init__(self, config: PRSRConfig) -> None:
        if not isinstance(config, PRSRConfig):
            raise TypeError(f"config must be a PRSRConfig, got {type(config).__name__}")
        super().__init__()
        self.config = config

    @classmethod
    def from_pretrained(cls, name: str | Path, **hub_options: Any) -> Self:  # type: ignore[override]  # narrower on purpose
        """A saved model, on the CPU and in evaluation mode.

        Args:
            name: a bundled name (see ``prsr info``; needs no network), a folder that
                :meth:`save_pretrained` wrote, or an id on the hub, owner/name; in that order. The
                hub is not asked where there is a folder called owner.
            hub_options: what ``huggingface_hub.hf_hub_download`` takes, such as ``revision``; of
                no use where the hub is not asked.

        Raises:
            TypeError: it takes no such option.
            FileNotFoundError: none of these is there.
            ValueError: what is there is damaged, or not a prsr model.
        """
        if unknown := hub_options.keys() - HUB_OPTIONS:
            raise TypeError(f"from_pretrained takes no {', '.join(sorted(unknown))}")
        config_path, weights_path = locate(name, **hub_options)
        method, config = read_description(config_path)
        if method != cls.method:
            raise ValueError(f"{name} is a model of the method {method}, not {cls.method}")
        weights = read_weights(weights_path, cls._outline(config))
        # A new model draws random weights: the caller's generator must not notice.
        with own_defaults(), torch.random.fork_rng(devices=[]):
            model = cls(config).float()
            model.load_state_dict(weights)
        return model.eval()

    @classmethod
    def _outline(cls, config: PRSRConfig) -> Self:
        """A model without memory: names and shapes of its weights."""
        with torch.device("meta"):
            return cls(config)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write ``model.safetensors``, ``config.json`` and, where none is there, a model card.

        Args:
            save_directory: made if needed; files of these names are replaced, each in one step.
            options: those of ``huggingface_hub.ModelHubMixin.save_pretrained``.

        Raises:
            OSError: the folder cannot be written; what stood there is unharmed.
            ValueError: its name is not UTF-8, or the model could not be loaded again: it has other
                weights than its configuration says.
        """
        folder = Path(save_directory)
        check_utf8(folder)
        self._plain_weights()  # raises before anything is written
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=UNFINISHED) as temporary:
            result = super().save_pretrained(temporary, **({"repo_id": folder.name} | options))
            for file in (WEIGHTS_FILE, CONFIG_FILE, "README.md"):
                if file != "README.md" or not (folder / file).exists():
                    with replacing(folder / file) as whole:
                        os.replace(Path(temporary) / file, whole)
        return result

    def _plain_weights(self) -> dict[str, torch.Tensor]:
        """The weights under the names of a plain model: without those of wrappers.

        Raises:
            ValueError: a weight is missing, of another shape, or one too many.
        """
        wrapped = [
            f"{name}.{inner}."
            for name, module in self.named_modules()
            for inner in WRAPPERS
            if name and isinstance(module._modules.get(inner), nn.Module)
        ]
        weights = {}
        for name, value in self.state_dict().items():
            for prefix in sorted(wrapped, key=len, reverse=True):
                if name.startswith(prefix):
                    inner = prefix.rstrip(".").rpartition(".")[0]
                    name = f"{inner}.{name.removeprefix(prefix)}"
            weights[name] = value
        expected = {k: v.shape for k, v in self._outline(self.config).state_dict().items()}
        found = {k: v.shape for k, v in weights.items()}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise ValueError(
                    f"a saved model has the weights of its configuration, but {name} should be "
                    f"{shape_text(expected.get(name))}, is {shape_text(found.get(name))}: remove "
                    "pruning and parametrisations first (torch.nn.utils has a function for each)"
                )
        return weights

    def _save_pretrained(self, save_directory: Path) -> None:
        write_tensors(self._plain_weights(), save_directory / WEIGHTS_FILE)
        method = {} if self.method == HubModel.method else {"method": self.method}
        described = json.dumps(self.config.to_dict() | method, indent=2, sort_keys=True)
        (save_directory / CONFIG_FILE).write_text(described, encoding="utf-8")
