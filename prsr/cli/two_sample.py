"""The command ``prsr two-sample``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import Progress

from prsr.cli.methods import describe_origins, open_methods
from prsr.cli.options import (
    ListsCommand,
    baselines_option,
    choose_device,
    console,
    data_option,
    device_option,
    images_option,
    model_option,
    out_option,
    overwrite_option,
    seed_option,
    temperatures_option,
    timed,
    training_option,
)
from prsr.data.dataset import SuperResolutionImages
from prsr.utils.messages import printable


@click.command("two-sample", cls=ListsCommand)
@data_option
@model_option
@baselines_option
@training_option
@temperatures_option(1.0)
@images_option(None)
@seed_option("Of the noise and of the classifier.", 2**63)
@out_option("two-sample", "Folder for table.json, table.csv and table.md.")
@overwrite_option
@device_option
def two_sample_command(
    data: Path,
    model: str,
    baselines: tuple[str, ...],
    training_data: Path | None,
    temperatures: tuple[float, ...],
    count: int | None,
    seed: int,
    out: Path,
    overwrite: bool,
    device: str,
) -> None:
    """How well a small classifier tells samples from the real images --data.

    A classifier two-sample test (Lopez-Paz and Oquab, arXiv 1610.06545). An accuracy of 0.5 means
    that the classifier cannot tell them apart.

    \b
    prsr two-sample --data faces-test.npy --temperature 0.8 1.0 --baselines bicubic
    """  # noqa: D301  (\b keeps lines apart, and must be that character)
    from prsr.evaluation.tables import as_markdown, check_tables, write_tables
    from prsr.evaluation.two_sample import ACCURACY, DESCRIPTION, FOLDS, two_sample_tests

    check_tables(out, overwrite)
    methods = open_methods(model, baselines, training_data, device)
    config = methods[next(iter(methods))].config
    images = SuperResolutionImages.open(data, config, progress=True).first(count)
    if len(images) < FOLDS:
        raise ValueError(f"a two-sample test needs at least {FOLDS} images, got {len(images)}")
    about = {
        "images": printable(f"{len(images):,} of {data}"),
        "samples": f"1 of each image, seed {seed}",
        **describe_origins(model, baselines, training_data, choose_device(device)),
        ACCURACY: DESCRIPTION,
    }
    with Progress(transient=True, console=console) as progress:
        found = two_sample_tests(methods, images, temperatures, seed=seed, progress=progress)
    click.echo(as_markdown(found, about))
    out.mkdir(parents=True, exist_ok=True)
    timed(lambda: write_tables(found, about, out), "two-sample test")
