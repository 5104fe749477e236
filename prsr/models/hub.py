"""Models that can be loaded and saved: from the package, a folder or the Hugging Face hub."""

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
from prsr.models.saved import (
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
"""What a module is called inside of ``torch.compile``'s wrapper, and in those for several GPUs."""
HUB_OPTIONS = signature(hf_hub_download).parameters.keys() - {"repo_id", "filename"}


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

    method: ClassVar[str] = DEFAULT_METHOD
    """What ``prsr train --method`` calls it; in ``config.json`` unless it is this one."""

    def __init__(self, config: PRSRConfig) -> None:
        if not isinstance(config, PRSRConfig):
            raise TypeError(f"config must be a PRSRConfig, got {type(config).__name__}")
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

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
        method = {} if self.method == DEFAULT_METHOD else {"method": self.method}
        described = json.dumps(self.config.to_dict() | method, indent=2, sort_keys=True)
        (save_directory / CONFIG_FILE).write_text(described, encoding="utf-8")
