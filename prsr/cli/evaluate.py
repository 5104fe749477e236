"""``prsr evaluate``.

torchmetrics and SciPy are optional (the extra ``evaluate``) and slow to import, so the command
imports them when it runs.
"""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import Progress

from prsr.cli.compared_methods import describe_methods, open_methods
from prsr.cli.options import (
    PATH,
    baselines_option,
    check_value,
    choose_device,
    console,
    data_option,
    device_option,
    images_option,
    model_option,
    out_option,
    overwrite_option,
    run_and_report,
    samples_option,
    seed_option,
    temperatures_option,
    training_option,
)
from prsr.data.dataset import SuperResolutionImages
from prsr.utils.files import check_folder
from prsr.utils.terminal_messages import printable


def check_optional_folder(folder: Path | None) -> None:
    """Raise as :func:`prsr.utils.files.check_folder` does, if there is a folder to check."""
    if folder is not None:
        check_folder(folder)


@click.command("evaluate")
@data_option
@model_option
@baselines_option
@training_option
@temperatures_option(1.0)
@samples_option(2)
@images_option(None)
@seed_option()
@out_option("evaluation", "Folder to write table.json, table.csv and table.md to.")
@click.option(
    "--save-images",
    "folder",
    type=PATH,
    callback=check_value(check_optional_folder),
    help="New folder for the real images and the first sample of each method, a folder each, as "
    "`prsr study new` takes them.",
)
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
    folder: Path | None,
    overwrite: bool,
    device: str,
) -> None:
    """Compare a model with baselines: the paper's table.

    Every value is a mean over images with its 95% confidence interval. pSNR, SSIM and MS-SSIM
    compare samples with the truth. Consistency is the mean squared error between the input and
    the reduced sample, with white at 1. Diversity is 1 − MS-SSIM between samples of one input.
    Bits per dimension are given for the model and for each of its networks alone; the difference
    between the model and its conditioning network is the gain of the prior.

    \b
    prsr evaluate --data faces-test.npy --temperature 1.0 --temperature 0.8
    prsr evaluate --data faces-test.npy --model runs/faces/model --training-data faces-train.npy \\
        --baseline bicubic --baseline nearest --baseline runs/l2/model
    """  # noqa: D301  (\b is click's mark for a block that is not rewrapped)
    from prsr.evaluation.compare import check_labels, compare
    from prsr.evaluation.metrics import describe_metrics
    from prsr.evaluation.save_images import ImageFolders
    from prsr.evaluation.tables import as_markdown, check_tables, write_tables

    check_tables(out, overwrite)

    methods = open_methods(model, baselines, training_data, device)
    check_labels(methods, temperatures)
    config = methods[next(iter(methods))].config
    images = SuperResolutionImages.open(data, config, progress=True).first(count)
    if len(images) < 2:
        raise ValueError(f"a confidence interval needs at least two images, got {len(images)}")
    notes = {
        "images": printable(f"{len(images):,} of {data}"),
        "samples": f"{samples} per image, seed {seed}",
        **describe_methods(model, baselines, training_data, choose_device(device)),
        **describe_metrics(*images.pixels.shape[2:]),
    }
    folders = ImageFolders(folder, images) if folder else None
    if folders:
        folders.save_real()
    with Progress(transient=True, console=console) as progress:
        table = compare(
            methods,
            images,
            temperatures,
            samples=samples,
            seed=seed,
            progress=progress,
            keep=folders.save if folders else None,
        )
    click.echo(as_markdown(table, notes))
    out.mkdir(parents=True, exist_ok=True)
    run_and_report(lambda: write_tables(table, notes, out), "tables")
