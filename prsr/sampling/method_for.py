"""The choice of the sampling method that a model needs."""

from __future__ import annotations

from typing import cast

from prsr.models.base import TrainedModel
from prsr.models.baselines import Independent, Regression, Unconditional
from prsr.models.prsr import PRSR
from prsr.sampling.method import Method
from prsr.sampling.sampler import Sampler
from prsr.sampling.trained_baselines import IndependentSampler, RegressionMethod


def method_for(model: TrainedModel, engine: str = "auto", precision: str = "fp32") -> Method:
    """The method that samples from a model.

    Args:
        model: of any method in :data:`prsr.models.registry.MODELS`.
        engine: as for :class:`prsr.Sampler`.
        precision: as for :class:`prsr.Sampler`.

    Raises:
        ValueError: the engine cannot be used, or the model has no prior network to sample from.
    """
    if isinstance(model, (PRSR, Unconditional)):
        return Sampler(cast(PRSR, model), engine=engine, precision=precision)
    if (engine, precision) != ("auto", "fp32"):
        raise ValueError(
            f"engine {engine!r}, precision {precision!r}: a model of the method {model.method} "
            "has no prior network; use auto and fp32"
        )
    if isinstance(model, Independent):
        return IndependentSampler(model)
    if isinstance(model, Regression):
        return RegressionMethod(model)
    raise TypeError(f"model must be of a method in MODELS, got {type(model).__name__}")
