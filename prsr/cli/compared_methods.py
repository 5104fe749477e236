"""The methods to compare in ``prsr evaluate`` and ``prsr figure``: opened by name, with labels."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch

from prsr.cli.options import load_model
from prsr.data.dataset import SuperResolutionImages
from prsr.info import describe_device
from prsr.sampling.interpolation import Bicubic, Nearest
from prsr.sampling.method import Method
from prsr.sampling.method_for import method_for
from prsr.utils.terminal_messages import printable


def open_methods(
    model: str, baselines: tuple[str, ...], training_data: Path | None, device: str
) -> dict[str, Method]:
    """The methods to compare, by label: the baselines in order, then the model.

    A label is the name of the method, with the baseline's name added if it would occur twice.

    Args:
        model: name of a saved model.
        baselines: "bicubic", "nearest" or names of saved models.
        training_data: images that "nearest" searches.
        device: of the models, as in ``--device``.

    Raises:
        FileNotFoundError: a model or the training data is missing.
        ValueError: a name is given twice, a baseline's images have other sizes than the model's, or
            "nearest" lacks training data.
    """
    names = [*baselines, model]
    if len(set(names)) < len(names):
        raise ValueError(f"model and baselines must differ, got {', '.join(names)}")
    compared = load_model(model, device)
    methods: dict[str, Method] = {}
    for name in baselines:
        if name == "bicubic":
            methods[name] = Bicubic(compared.config)
        elif name == "nearest":
            if training_data is None:
                raise ValueError("the baseline nearest needs --training-data")
            images = SuperResolutionImages.open(training_data, compared.config, progress=True)
            methods[name] = Nearest(images)
        else:
            try:
                baseline = load_model(name, device)
            except FileNotFoundError as error:
                accepted = "baselines must be bicubic, nearest, or models"
                raise FileNotFoundError(f"{accepted}: {error}") from error
            if baseline.config.image_format != compared.config.image_format:
                raise ValueError(
                    f"{name} and {model} must have images of the same size: channels, levels, "
                    f"scale, height and width are {baseline.config.image_format}, not "
                    f"{compared.config.image_format}"
                )
            taken = baseline.method in (compared.method, *methods)
            label = f"{baseline.method} ({printable(name)})" if taken else baseline.method
            methods[label] = method_for(baseline)
    methods[compared.method] = method_for(compared)
    return methods


def describe_methods(
    model: str, baselines: tuple[str, ...], training_data: Path | None, device: torch.device
) -> dict[str, str]:
    """Models, data, device and versions of a comparison, by heading: notes on its table."""
    notes = {"model": printable(model)}
    if baselines:
        notes["baselines"] = printable(", ".join(baselines))
    if "nearest" in baselines:
        notes["training data"] = printable(str(training_data))
    notes["device"] = f"{device}: {describe_device(device)}"
    notes["versions"] = ", ".join(f"{name} {version(name)}" for name in ("prsr", "torch"))
    return notes
