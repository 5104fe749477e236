"""Training settings: hyperparameters, learning-rate schedule, optimiser and weight average.

The defaults are those of the public re-implementations of Dahl et al. (2017): RMSProp with decay
0.95, momentum 0.9 and ε 1e-8, learning rate 4e-4 halved every 500,000 steps, batch size 32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from prsr.config import PRSRConfig
from prsr.models.prsr import PRSR
from prsr.models.registry import MODELS
from prsr.utils.argument_checks import check_integer, check_number, set_checked

OPTIMIZERS = ("rmsprop", "adamw")
SCHEDULES = ("halve", "linear", "cosine")


@dataclass(frozen=True)
class TrainSettings:
    """The settings that, together with the data and the number of steps, determine the weights.

    Attributes:
        config: of the model.
        batch_size: images per step over all processes.
        learning_rate: initial value, after the warm-up.
        halve_every: steps after which the schedule "halve" halves the learning rate repeatedly.
        clip: largest norm of a gradient; larger gradients are scaled down to it. Without clipping,
            rare steps can destroy the weights.
        seed: of the initial weights and of the order of the data.
        precision: "fp32", or "bf16" for mixed precision (autocast).
        method: the model to train, a key of ``prsr.models.registry.MODELS``.
        augment: crop and mirror training images at random (:mod:`prsr.training.augmentation`).
        optimizer: "rmsprop", or "adamw" (β 0.9 and 0.99, weight decay 0.01).
        ema: decay of an exponential moving average of weights and batch-norm statistics, above 0
            and below 1; None for no average. The average, if any, is the model that is evaluated,
            sampled and saved. After t steps its decay is at most (1 + t)/(10 + t).
        warmup: steps over which the learning rate rises to its initial value.
        schedule: of the learning rate: "halve"; "linear", constant for half of the run and then
            linear to zero; "cosine", half a period.
        schedule_steps: step at which "linear" and "cosine" reach zero; None with "halve".

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range.
    """

    config: PRSRConfig
    batch_size: int = 32
    learning_rate: float = 4e-4
    halve_every: int = 500_000
    clip: float = 1.0
    seed: int = 0
    precision: str = "fp32"
    method: str = PRSR.method
    augment: bool = False
    optimizer: str = "rmsprop"
    ema: float | None = None
    warmup: int = 0
    schedule: str = "halve"
    schedule_steps: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.config, PRSRConfig):
            raise TypeError(f"config must be a PRSRConfig, got {self.config!r}")
        if not isinstance(self.augment, bool):
            raise TypeError(f"augment must be True or False, got {self.augment!r}")
        for name in ("batch_size", "halve_every"):
            set_checked(self, name, check_integer(getattr(self, name), name, 1, 2**31))
        set_checked(self, "warmup", check_integer(self.warmup, "warmup", 0, 2**31))
        set_checked(self, "seed", check_integer(self.seed, "seed", 0, 2**63))
        for name in ("learning_rate", "clip"):
            value = check_number(getattr(self, name), name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value}")
            set_checked(self, name, value)
        if self.ema is not None:
            set_checked(self, "ema", check_number(self.ema, "ema"))
            if not 0 < self.ema < 1:
                raise ValueError(f"ema must be above 0 and below 1, got {self.ema}")
        accepted = {
            "precision": ("fp32", "bf16"),
            "method": tuple(MODELS),
            "optimizer": OPTIMIZERS,
            "schedule": SCHEDULES,
        }
        for name, names in accepted.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in names:
                listed = f"{', '.join(names[:-1])} or {names[-1]}"
                raise ValueError(f"{name} must be {listed}, got {value!r}")
        if self.schedule == "halve" and self.schedule_steps is not None:
            raise ValueError(
                f"schedule_steps must be None with the schedule halve, got {self.schedule_steps}"
            )
        if self.schedule != "halve":
            steps = check_integer(self.schedule_steps, "schedule_steps", 1, 2**63)
            set_checked(self, "schedule_steps", steps)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if self.schedule_steps is None:
            factor = 0.5 ** (step // self.halve_every)
        else:
            left = 1 - step / self.schedule_steps
            cosine = (1 - math.cos(math.pi * left)) / 2
            factor = min(1.0, 2 * left) if self.schedule == "linear" else cosine
        if step < self.warmup:
            factor *= (step + 1) / self.warmup
        return self.learning_rate * factor


def make_optimizer(settings: TrainSettings, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser for a model's parameters, on their device."""
    parameters = list(model.parameters())
    if settings.optimizer == "adamw":
        # One kernel for all parameters; torch has no fused RMSprop.
        fused = parameters[0].device.type in ("cpu", "cuda")
        return torch.optim.AdamW(
            parameters, lr=settings.learning_rate, betas=(0.9, 0.99), fused=fused
        )
    return torch.optim.RMSprop(
        parameters, lr=settings.learning_rate, alpha=0.95, momentum=0.9, eps=1e-8
    )


def make_average(model: nn.Module, decay: float, updates: Callable[[], int]) -> AveragedModel:
    """An exponential moving average of a model's parameters and floating-point buffers.

    Other buffers are copied. The first update copies everything.

    Args:
        model: initial state of the average.
        decay: see ``TrainSettings.ema``.
        updates: returns the number of updates so far.
    """

    def blend(averaged: Any, current: Any, _: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            count = updates()  # not the third argument, whose reading may wait for a GPU
            own_decay = min(decay, (1 + count) / (10 + count))
            get_ema_multi_avg_fn(own_decay)(averaged, current, count)
        else:
            for mean, value in zip(averaged, current, strict=True):
                mean.copy_(value)

    return AveragedModel(model, multi_avg_fn=blend, use_buffers=True)
