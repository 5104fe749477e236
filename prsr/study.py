"""The commands of a study: ``prsr evaluate`` and ``prsr experiment``.

What they stand on (torchmetrics, SciPy, scikit-learn, matplotlib) comes with the extra ``evaluate``
and takes seconds to import, so that each command imports its own.
"""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import Progress

from prsr.corners import read_digits
from prsr.data import SuperResolutionPictures
from prsr.methods import describe_origins, open_methods
from prsr.options import (
    PATH,
    ListsCommand,
    baselines_option,
    choose_device,
    console,
    data_option,
    device_option,
    model_option,
    out_option,
    overwrite_option,
    pictures_option,
    seed_option,
    temperatures_option,
    timed,
    training_option,
)
from prsr.reporting import printable


@click.command("evaluate", cls=ListsCommand)
@data_option
@model_option
@baselines_option
@training_option
@temperatures_option(1.0)
@click.option("--samples", default=2, type=click.IntRange(1), help="To draw of each picture.")
@pictures_option(None)
@seed_option()
@out_option("evaluation", "Folder for table.json, table.csv and table.md.")
@overwrite_option
@device_option
def evaluate_command(
    data: Path,
    model: str,
    baselines: tuple[str, ...],
    training_data: Path | None,
    temperatures: tuple[float, ...],
    samples: int,
    count: int | None,
    seed: int,
    out: Path,
    overwrite: bool,
    device: str,
) -> None:
    """The paper's table: how near the truth and the input pictures come, how much they differ.

    Every figure is a mean over pictures with its 95% interval. pSNR, SSIM and MS-SSIM are against
    the truth; consistency is the mean squared error between the input and the reduced output,
    where white is 1; diversity is 1 − MS-SSIM between samples of one input. Bits per dimension
    are those of whole models and of their networks alone; the gap is what the prior brings.

    \b
    prsr evaluate --data faces-test.npy --temperature 1.0 0.909 0.833
    prsr evaluate --data faces-test.npy --model runs/faces/model --training-data faces-train.npy \\
        --baselines bicubic nearest runs/l2/model runs/independent/model
    """  # noqa: D301  (\b keeps lines apart, and must be that character)
    from prsr.comparison import compare
    from prsr.metrics import describe_measures
    from prsr.tables import as_markdown, check_tables, write_tables

    check_tables(out, overwrite)

    methods = open_methods(model, baselines, training_data, device)
    config = methods[next(iter(methods))].config
    pictures = SuperResolutionPictures.open(data, config, progress=True).first(count)
    if len(pictures) < 2:
        raise ValueError("there must be two pictures at least, or there is no interval")
    about = {
        "pictures": printable(f"{len(pictures):,} of {data}"),
        "samples": f"{samples} of each picture, seed {seed}",
        **describe_origins(model, baselines, training_data, choose_device(device)),
        **describe_measures(*pictures.pixels.shape[2:]),
    }
    with Progress(transient=True, console=console) as progress:
        found = compare(
            methods, pictures, temperatures, samples=samples, seed=seed, progress=progress
        )
    click.echo(as_markdown(found, about))
    out.mkdir(parents=True, exist_ok=True)
    timed(lambda: write_tables(found, about, out), "tables")


@click.group()
def experiment() -> None:
    """Repeat an experiment of the paper from data to verdict."""


@experiment.command()
@click.option(
    "--data", required=True, type=PATH, help="MNIST digits to train on: .npy, uint8 [N, 1, 28, 28]."
)
@click.option("--test", required=True, type=PATH, help="Likewise, to test on.")
@click.option("--steps", default=2000, type=click.IntRange(1), help="To train each model.")
@out_option("runs/corners", "Folder for models, figure and results; a broken run is resumed.")
@seed_option("Of corners, first weights, order and noise.", below=2**63)
@device_option
def corners(data: Path, test: Path, steps: int, out: Path, seed: int, device: str) -> None:
    """A digit stands top left or bottom right, and the input does not tell: who commits?

    Trains L2 regression, independent cross-entropy and the recursive model, lets each enlarge the
    test digits, and counts the pictures that hold exactly one digit, in one corner.
    """
    from prsr.corners import place_digits
    from prsr.experiments import run_corners

    training, testing = (
        place_digits(read_digits(path), corner_seed)
        for path, corner_seed in ((data, seed), (test, seed + 1))
    )

    def run() -> list[Path]:
        table = run_corners(training, testing, steps, out, seed, choose_device(device))
        click.echo(table.read_text(encoding="utf-8"))
        return [out / "corners.png", table]

    timed(run, f"{len(training)} digits, {steps} steps of each model")
