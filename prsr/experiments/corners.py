"""The MNIST corners experiment: train three models, sample the test inputs, and count the corners.

The data set and the classifier are in :mod:`prsr.experiments.corner_digits`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from prsr.data.dataset import SuperResolutionImages
from prsr.evaluation.metrics import Interval, share_interval
from prsr.evaluation.plots import image_grid, save_figure
from prsr.evaluation.tables import check_results, interval_text, markdown_table
from prsr.experiments.corner_digits import CONFIG, Classification, CornerDigits, classify
from prsr.models.baselines import Independent, Regression
from prsr.models.prsr import PRSR
from prsr.models.registry import open_model
from prsr.sampling.method_for import method_for
from prsr.training.loop import RunPlan, train
from prsr.training.progress import ProgressBars, Status
from prsr.training.settings import TrainSettings
from prsr.training.trainer import has_checkpoint
from prsr.utils.files import replacing
from prsr.utils.processes import call_side_by_side

LEARNING_RATE = 1e-3
EMA = 0.99

FILE_NAMES = ("corners.json", "corners.md", "corners.png")

FIGURE_DIGITS = 10
"""Number of test digits in the figure."""

VALIDATION_DIGITS = 200
"""Number of test digits on which training runs validate."""


@dataclass(frozen=True)
class Run:
    """A training run of the experiment.

    Attributes:
        method: of the model.
        training: canvases to train on.
        validation: canvases to validate on.
        steps: training steps.
        folder: of the run.
        seed: of initial weights and data order.
        device: to train on.
    """

    method: str
    training: CornerDigits
    validation: SuperResolutionImages
    steps: int
    folder: Path
    seed: int
    device: torch.device


def check_corners(folder: Path, overwrite: bool) -> None:
    """Check that :func:`run_corners` would not replace results that it did not write.

    Args:
        folder: may be missing.
        overwrite: whether any file may be replaced.

    Raises:
        FileExistsError: results by another program exist, and ``overwrite`` is false.
    """
    check_results(folder, FILE_NAMES, {"steps", "seed", "shares"}, overwrite)


def run_corners(
    training: CornerDigits,
    testing: CornerDigits,
    steps: int,
    folder: Path,
    seed: int,
    device: torch.device,
) -> Path:
    """Train the models, sample each test input once with each, and write figure and shares.

    Finished training runs in ``folder`` are reused; interrupted ones are resumed. They are made in
    as many processes as torch has threads, because the networks are too small to gain from several
    threads. Processes are started with "spawn": a script that calls this must do so below
    ``if __name__ == "__main__":``.

    Args:
        training: canvases to train on.
        testing: canvases to test on, two or more.
        steps: training steps of each model.
        folder: for a training run per method, and ``corners.png``, ``.json`` and ``.md``.
        seed: seed of initial weights, data order and noise.
        device: to train on.

    Returns:
        The path of the Markdown table.

    Raises:
        OSError: the folder cannot be written.
        ValueError: it contains runs with other settings, or there are fewer than two test digits.
    """
    if len(testing) < 2:
        raise ValueError(f"testing must have at least two digits, got {len(testing)}")
    lr, hr = testing.batch(slice(None))
    samples: dict[str, Tensor] = {}
    validation = testing.first(VALIDATION_DIGITS)
    methods = (PRSR.method, Regression.method, Independent.method)  # the longest run first
    runs = {
        method: Run(method, training, validation, steps, folder / method, seed, device)
        for method in methods
    }
    with ProgressBars() as bars:
        processes = min(len(runs), torch.get_num_threads())
        call_side_by_side(train_or_resume, runs, processes, bars.show)
    for method in (Regression.method, Independent.method, PRSR.method):
        model = open_model(runs[method].folder / "model").to(device)
        samples[method] = method_for(model).sample(lr, seed=seed)
        if method == Independent.method:
            samples["argmax"] = method_for(model).sample(lr, 0.0, seed=seed)
    samples["truth"] = hr

    found = {name: shares(classify(s.numpy(), testing)) for name, s in samples.items()}
    settings = {"steps": steps, "seed": seed, "test digits": len(lr)}
    values = {
        name: {share: asdict(value) for share, value in row.items()} for name, row in found.items()
    }
    json_file, table, figure = (folder / name for name in FILE_NAMES)
    content = json.dumps(settings | {"shares": values}, indent=2) + "\n"
    # The JSON file first: it identifies the results as prsr's own.
    for path, text in ((json_file, content), (table, as_markdown(found))):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    columns = [lr, *samples.values()]
    rows = list(zip(*(column[:FIGURE_DIGITS] for column in columns), strict=True))
    save_figure(image_grid(rows, ["input", *samples], CONFIG), figure)
    return table


def shares(classes: Classification) -> dict[str, Interval]:
    """The share of images in each class, with its interval."""
    by_name = {
        "single": classes.top_left | classes.bottom_right,
        "top left": classes.top_left,
        "bottom right": classes.bottom_right,
        "both corners": classes.both,
    }
    return {name: share_interval(flags) for name, flags in by_name.items()}


def as_markdown(found: Mapping[str, Mapping[str, Interval]]) -> str:
    """A Markdown table of shares, a line per method."""
    return markdown_table(
        [
            {"method": name} | {kind: interval_text(kind, value) for kind, value in row.items()}
            for name, row in found.items()
        ]
    )


def train_or_resume(run: Run, show: Callable[[Status], None]) -> None:
    """Make a training run, or resume it.

    Args:
        run: its folder may contain an earlier part of the run.
        show: shows the progress.

    Raises:
        OSError: the folder cannot be written.
        ValueError: it contains a run with other settings.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    # The weights of the last step favour one corner by chance; their moving average does not.
    settings = TrainSettings(
        CONFIG,
        learning_rate=LEARNING_RATE,
        schedule="linear",
        schedule_steps=run.steps,
        ema=EMA,
        seed=run.seed,
        method=run.method,
    )
    plan = RunPlan(run.folder, run.steps, report_every=max(1, run.steps // 4))
    resume = has_checkpoint(run.folder)
    try:
        train(settings, plan, run.training, run.validation, run.device, resume=resume, show=show)
    except ValueError as error:
        if not resume:
            raise
        raise ValueError(
            f"{run.folder} contains a run that cannot be resumed with {run.steps} steps and seed "
            f"{run.seed}; choose another folder: {error}"
        ) from error
