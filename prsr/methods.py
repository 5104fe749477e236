"""The methods that a study compares: opened by name, each under a label of its own."""

from __future__ import annotations

from pathlib import Path

from prsr.baselines import Bicubic, Method, Nearest, method_of
from prsr.config import PRSRConfig
from prsr.data import SuperResolutionPictures
from prsr.options import load


def open_methods(
    model: str, baselines: tuple[str, ...], training_data: Path | None, device: str
) -> dict[str, Method]:
    """The methods to compare by label, in the order of the paper's figures: the model comes last.

    Raises:
        FileNotFoundError: a model or the training data is missing.
        ValueError: a model does not fit the first, or ``nearest`` has nothing to look among.
    """
    main = load(model, device)
    methods: dict[str, Method] = {}
    for name in baselines:
        if name == "bicubic":
            methods[name] = Bicubic(main.config)
        elif name == "nearest":
            if training_data is None:
                raise ValueError("the baseline nearest needs --training-data to look among")
            among = SuperResolutionPictures.open(training_data, main.config, progress=True)
            methods[name] = Nearest(among)
        else:
            try:
                baseline = load(name, device)
            except FileNotFoundError as error:
                accepted = "baselines must be bicubic, nearest, or models"
                raise FileNotFoundError(f"{accepted}: {error}") from error
            if sizes(baseline.config) != sizes(main.config):
                raise ValueError(
                    f"{name} enlarges other pictures than {model}: channels, levels, scale, height "
                    f"and width are {sizes(baseline.config)}, not {sizes(main.config)}"
                )
            methods[label(baseline.method, name, methods)] = method_of(baseline)
    methods[label(main.method, model, methods)] = method_of(main)
    return methods


def sizes(config: PRSRConfig) -> tuple[int, ...]:
    """The numbers that tell which pictures a model takes and makes."""
    return (
        config.channels,
        config.levels,
        config.scale,
        config.low_height,
        config.low_width,
    )


def label(method: str, name: str, taken: dict[str, Method]) -> str:
    """A method's label; where it is taken, with the name of the model."""
    return method if method not in taken else f"{method} ({name})"
