"""The experiment of the corners: train three models, let them enlarge, and count.

See :mod:`prsr.experiments.corner_digits` for the data and for what counts as a digit in a corner.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prsr.evaluation.metrics import Interval
from prsr.evaluation.plots import grid, save_figure
from prsr.evaluation.tables import interval_text, markdown_table
from prsr.experiments.corner_digits import CONFIG, CornerDigits, Verdicts, classify
from prsr.models.base import TrainedModel
from prsr.models.baselines import Independent, Regression
from prsr.models.prsr import PRSR
from prsr.sampling.baselines import method_for
from prsr.training.loop import RunPlan, train
from prsr.training.recipe import TrainSettings
from prsr.training.trainer import has_checkpoint
from prsr.utils.files import replacing

LEARNING_RATE = 1e-3
EMA = 0.99
SHOWN = 10
"""Test digits in the figure."""

REPORTED = 200
"""Test digits that the reports of a run are about."""


def run_corners(
    training: CornerDigits,
    testing: CornerDigits,
    steps: int,
    folder: Path,
    seed: int,
    device: torch.device,
) -> Path:
    """Train what is not trained yet, enlarge every test input once, and write what was found.

    Args:
        training: canvases to train on.
        testing: canvases to test on, two at least.
        steps: of each model.
        folder: gets a run for each method, and ``corners.png``, ``.json`` and ``.md``.
        seed: of first weights, order and noise.
        device: to train on.

    Returns:
        The Markdown table.

    Raises:
        OSError: the folder cannot be written.
        ValueError: it holds runs with other settings, or there are not two test digits.
    """
    if len(testing) < 2:
        raise ValueError(f"testing must hold two digits at least, got {len(testing)}")
    lr, hr = testing.batch(slice(None))
    made: dict[str, Tensor] = {}
    for method in (Regression.method, Independent.method, PRSR.method):
        model = trained(method, training, testing, steps, folder / method, seed, device)
        made[method] = method_for(model).sample(lr, seed=seed)
        if method == Independent.method:
            made["argmax"] = method_for(model).sample(lr, 0.0, seed=seed)
    made["truth"] = hr
    verdicts = {name: classify(images.numpy(), testing) for name, images in made.items()}

    shown = zip(lr[:SHOWN], *(images[:SHOWN] for images in made.values()), strict=True)
    save_figure(grid(list(shown), ["input", *made], CONFIG), folder / "corners.png")
    found = {name: shares(verdict) for name, verdict in verdicts.items()}
    about = {"steps": steps, "seed": seed, "test digits": len(lr)}
    numbers = {
        name: {kind: asdict(value) for kind, value in row.items()} for name, row in found.items()
    }
    texts = {
        "corners.json": json.dumps(about | {"shares": numbers}, indent=2) + "\n",
        "corners.md": as_markdown(found),
    }
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / "corners.md"


def shares(verdicts: Verdicts) -> dict[str, Interval]:
    """The share of the images for which each verdict holds, by verdict."""
    by_name = {
        "single": verdicts.top_left | verdicts.bottom_right,
        "top left": verdicts.top_left,
        "bottom right": verdicts.bottom_right,
        "both corners": verdicts.both,
    }
    return {name: share(holds) for name, holds in by_name.items()}


def share(verdicts: NDArray[np.bool_]) -> Interval:
    """The share of true verdicts, ``bool [N]``, and its 95% interval by Wilson's method (1927)."""
    from scipy.stats import binomtest  # prsr.evaluation.metrics has checked that SciPy is installed

    found = binomtest(int(verdicts.sum()), len(verdicts)).proportion_ci(method="wilson")
    return Interval(float(verdicts.mean()), float(found.low), float(found.high))


def as_markdown(found: Mapping[str, Mapping[str, Interval]]) -> str:
    """A line for each method."""
    return markdown_table(
        [
            {"method": name} | {kind: interval_text(kind, value) for kind, value in row.items()}
            for name, row in found.items()
        ]
    )


def trained(
    method: str,
    training: CornerDigits,
    testing: CornerDigits,
    steps: int,
    folder: Path,
    seed: int,
    device: torch.device,
) -> TrainedModel:
    """A model of a method, trained in ``folder``, or gone on with where a run broke off."""
    folder.mkdir(parents=True, exist_ok=True)
    # The last step's own weights favour one corner or the other by chance; their average does not.
    settings = TrainSettings(
        CONFIG,
        learning_rate=LEARNING_RATE,
        schedule="linear",
        schedule_steps=steps,
        ema=EMA,
        seed=seed,
        method=method,
    )
    plan = RunPlan(folder, steps, report_every=max(1, steps // 4))
    resume = has_checkpoint(folder)
    try:
        return train(settings, plan, training, testing.first(REPORTED), device, resume=resume)
    except ValueError as error:
        if not resume:
            raise
        raise ValueError(
            f"{folder} holds a run that {steps} steps with seed {seed} cannot go on with, choose "
            f"another folder: {error}"
        ) from error
