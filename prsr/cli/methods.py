"""The methods that a study compares: opened by name, each under a label of its own."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import torch

from prsr.cli.options import load
from prsr.config import PRSRConfig
from prsr.data.dataset import SuperResolutionImages
from prsr.info import describe_device
from prsr.sampling.baselines import method_for
from prsr.sampling.interpolation import Bicubic, Nearest
from prsr.sampling.method import Method
from prsr.utils.messages import printable


def open_methods(
    model: str, baselines: tuple[str, ...], training_data: Path | None, device: str
) -> dict[str, Method]:
    """The methods to compare by label, in the order of the paper's figures: the model comes last.

    A label is the method's name, and that of the baseline where the method has it already.

    Raises:
        FileNotFoundError: a model or the training data is missing.
        ValueError: one is given twice, a baseline does not fit the model, or ``nearest`` has
            nothing to look among.
    """
    named = [*baselines, model]
    if len(set(named)) < len(named):
        raise ValueError(f"model and baselines must be different ones, got {', '.join(named)}")
    main = load(model, device)
    methods: dict[str, Method] = {}
    for name in baselines:
        if name == "bicubic":
            methods[name] = Bicubic(main.config)
        elif name == "nearest":
            if training_data is None:
                raise ValueError("the baseline nearest needs --training-data to look among")
            among = SuperResolutionImages.open(training_data, main.config, progress=True)
            methods[name] = Nearest(among)
        else:
            try:
                baseline = load(name, device)
            except FileNotFoundError as error:
                accepted = "baselines must be bicubic, nearest, or models"
                raise FileNotFoundError(f"{accepted}: {error}") from error
            if sizes(baseline.config) != sizes(main.config):
                raise ValueError(
                    f"{name} enlarges other images than {model}: channels, levels, scale, height "
                    f"and width are {sizes(baseline.config)}, not {sizes(main.config)}"
                )
            taken = baseline.method in (main.method, *methods)
            label = f"{baseline.method} ({printable(name)})" if taken else baseline.method
            methods[label] = method_for(baseline)
    methods[main.method] = method_for(main)
    return methods


def sizes(config: PRSRConfig) -> tuple[int, ...]:
    """The numbers that tell which images a model takes and makes."""
    return (
        config.channels,
        config.levels,
        config.scale,
        config.low_height,
        config.low_width,
    )


def describe_origins(
    model: str, baselines: tuple[str, ...], training_data: Path | None, device: torch.device
) -> dict[str, str]:
    """What a reader of a table must know of its methods to make it again, by heading."""
    about = {"model": printable(model)}
    if baselines:
        about["baselines"] = printable(", ".join(baselines))
    if "nearest" in baselines:
        about["training data"] = printable(str(training_data))
    about["device"] = f"{device}: {describe_device(device)}"
    about["versions"] = ", ".join(f"{name} {version(name)}" for name in ("prsr", "torch"))
    return about
