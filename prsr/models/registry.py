"""The trainable models by method, and opening a saved model of any method."""

from __future__ import annotations

from pathlib import Path

from prsr.models.base import TrainedModel
from prsr.models.baselines import (
    Independent,
    Regression,
    Unconditional,
)
from prsr.models.load_and_save import locate
from prsr.models.model_files import read_description
from prsr.models.prsr import PRSR

MODELS: dict[str, type[TrainedModel]] = {
    model.method: model for model in (PRSR, Independent, Regression, Unconditional)
}
"""Model class by method."""


def open_model(name: str | Path) -> TrainedModel:
    """A saved model of any method, on the CPU and in evaluation mode.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it is damaged, or not a prsr model.
    """
    method, _ = read_description(locate(name)[0])
    if method not in MODELS:
        raise ValueError(f"{name} is of the method {method!r}; there are: {', '.join(MODELS)}")
    return MODELS[method].from_pretrained(name)
