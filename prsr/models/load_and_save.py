"""Loading and saving models: the package, folders and the Hugging Face hub."""

from __future__ import annotations

import json
import os
import tempfile
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import HfApi, ModelHubMixin, hf_hub_download, try_to_load_from_cache
from torch import nn
from typing_extensions import Self

from prsr.config import PRSRConfig
from prsr.models.model_files import (
    BUNDLED,
    CONFIG_FILE,
    DEFAULT_METHOD,
    WEIGHTS_FILE,
    bundled_models,
    read_description,
    read_weights,
    write_tensors,
)
from prsr.utils.files import UNFINISHED, check_utf8, replacing
from prsr.utils.torch_settings import own_defaults

WRAPPERS = ("_orig_mod", "module")
"""Attributes that hold the wrapped module: in ``torch.compile``, in wrappers for GPUs."""
HUB_OPTIONS = signature(hf_hub_download).parameters.keys() - {"repo_id", "filename"}


def locate(name: str | Path, **hub_options: Any) -> tuple[Path, Path]:
    """Paths of the configuration and weights of a bundled name, a folder or a hub id.

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
    absent = (
        f"{source!r} is not a bundled model ({', '.join(bundled_models()) or 'none'}) or a folder"
    )
    if source.count("/") != 1 or source.startswith((".", "~")):
        raise FileNotFoundError(f"{absent}, nor an id on the hub (owner/name)")
    try:
        return download(source, **hub_options)
    except Exception as error:  # the client raises exceptions of several libraries
        reported = type(error).__name__, *str(error).splitlines()[:1]
        raise FileNotFoundError(f"{absent}, and the hub reported {': '.join(reported)}") from error


def download(repo_id: str, **hub_options: Any) -> tuple[Path, Path]:
    """Paths of the configuration and weights of a model on the hub, in the local cache."""
    location = {key: hub_options[key] for key in ("revision", "cache_dir") if key in hub_options}
    cached = isinstance(try_to_load_from_cache(repo_id, CONFIG_FILE, **location), str)
    if not cached and not hub_options.get("local_files_only"):
        # hf_hub_download retries for 23 seconds when the hub cannot be reached; this asks once.
        HfApi(endpoint=hub_options.get("endpoint"), token=hub_options.get("token")).model_info(
            repo_id, revision=hub_options.get("revision"), timeout=10
        )
    config, weights = (
        Path(hf_hub_download(repo_id=repo_id, filename=file, **hub_options))
        for file in (CONFIG_FILE, WEIGHTS_FILE)
    )
    return config, weights


def shape_text(shape: torch.Size | None) -> str:
    """A shape as text; "absent" for None."""
    return "absent" if shape is None else str(list(shape))


class HubModel(
    nn.Module,
    ModelHubMixin,
    library_name="prsr",
    paper_url="https://arxiv.org/abs/1702.00783",
    tags=["super-resolution", "autoregressive", "pixelcnn"],
):
    """A module defined by a :class:`PRSRConfig`, which can be loaded and saved."""

    method: ClassVar[str] = DEFAULT_METHOD
    """Its name in ``prsr train --method``; stored in ``config.json`` unless it is the default."""

    def __init__(self, config: PRSRConfig) -> None:
        if not isinstance(config, PRSRConfig):
            raise TypeError(f"config must be a PRSRConfig, got {type(config).__name__}")
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @classmethod
    def from_pretrained(cls, name: str | Path, **hub_options: Any) -> Self:  # type: ignore[override]  # narrower on purpose
        """A saved model, on the CPU and in evaluation mode.

        Args:
            name: a bundled name (see ``prsr info``; needs no network), a folder that
                :meth:`save_pretrained` wrote, or an id on the hub, owner/name; looked up in
                that order. The hub is not asked if there is a folder called owner.
            hub_options: arguments of ``huggingface_hub.hf_hub_download``, such as ``revision``;
                ignored if the hub is not asked.

        Raises:
            TypeError: an option is unknown.
            FileNotFoundError: there is no such model.
            ValueError: the model is damaged, or of another method.
        """
        if unknown := hub_options.keys() - HUB_OPTIONS:
            raise TypeError(f"from_pretrained has no option {', '.join(sorted(unknown))}")
        config_path, weights_path = locate(name, **hub_options)
        method, config = read_description(config_path)
        if method != cls.method:
            raise ValueError(f"{name} is a model of the method {method}, not {cls.method}")
        weights = read_weights(weights_path, cls._outline(config))
        # A new model has random weights, but the state of the caller's generator must not change.
        with own_defaults(), torch.random.fork_rng(devices=[]):
            model = cls(config).float()
            model.load_state_dict(weights)
        return model.eval()

    @classmethod
    def _outline(cls, config: PRSRConfig) -> Self:
        """A model on the meta device: names and shapes without memory."""
        with torch.device("meta"):
            return cls(config)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write ``model.safetensors``, ``config.json`` and, if there is none yet, a model card.

        Args:
            save_directory: created if needed; each file is replaced atomically.
            options: those of ``huggingface_hub.ModelHubMixin.save_pretrained``.

        Raises:
            OSError: the folder cannot be written; existing files are unchanged.
            ValueError: its name is not UTF-8, or the weights do not match the configuration, so
                that the model could not be loaded again.
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
        """The weights by the names of an unwrapped model.

        Raises:
            ValueError: a weight is missing, unexpected or of the wrong shape.
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
                    f"a saved model must match its configuration, but {name} should be "
                    f"{shape_text(expected.get(name))}, is {shape_text(found.get(name))}: remove "
                    "pruning and parametrisations first (see torch.nn.utils)"
                )
        return weights

    def _save_pretrained(self, save_directory: Path) -> None:
        write_tensors(self._plain_weights(), save_directory / WEIGHTS_FILE)
        method = {} if self.method == DEFAULT_METHOD else {"method": self.method}
        described = json.dumps(self.config.to_dict() | method, indent=2, sort_keys=True)
        (save_directory / CONFIG_FILE).write_text(described, encoding="utf-8")
