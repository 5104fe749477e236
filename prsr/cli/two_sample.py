"""The command ``prsr two-sample``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import Progress

from prsr.cli.compared_methods import describe_methods, open_methods
from prsr.cli.options import (
    baselines_option,
    choose_device,
    console,
    data_option,
    device_option,
    images_option,
    model_option,
    out_option,
    overwrite_option,
    run_and_report,
    seed_option,
    temperatures_option,
    training_option,
)
from prsr.data.dataset import SuperResolutionImages
from prsr.utils.terminal_messages import printable


@click.command("two-sample")
@data_option
@model_option
@baselines_option
@training_option
@temperatures_option(1.0)
@images_option(None)
@seed_option("Seed of the noise and of the classifier.", 2**63)
@out_option("two-sample", "Folder to write table.json, table.csv and table.md to.")
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
    """Measure how well a small classifier distinguishes samples from the real images --data.

    A classifier two-sample test (Lopez-Paz and Oquab, arXiv 1610.06545). An accuracy of 0.5 means
    that the classifier cannot tell them apart.

    \b
    prsr two-sample --data faces-test.npy --temperature 0.8 --temperature 1.0 --baseline bicubic
    """  # noqa: D301  (\b is click's mark for a block that is not rewrapped)
    from prsr.evaluation.tables import as_markdown, check_tables, write_tables
    from prsr.evaluation.two_sample import ACCURACY, DESCRIPTION, two_sample_tests

    check_tables(out, overwrite)
    methods = open_methods(model, baselines, training_data, device)
    config = methods[next(iter(methods))].config
    images = SuperResolutionImages.open(data, config, progress=True).first(count)
    notes = {
        "images": printable(f"{len(images):,} of {data}"),
        "samples": f"1 per image, seed {seed}",
        **describe_methods(model, baselines, training_data, choose_device(device)),
        ACCURACY: DESCRIPTION,
    }
    with Progress(transient=True, console=console) as progress:
        table = two_sample_tests(methods, images, temperatures, seed=seed, progress=progress)
    click.echo(as_markdown(table, notes))
    out.mkdir(parents=True, exist_ok=True)
    run_and_report(lambda: write_tables(table, notes, out), "two-sample test")
