"""The commands of a study: ``prsr evaluate`` and ``prsr experiment``.

What they stand on (torchmetrics, SciPy, scikit-learn, matplotlib) comes with the extra ``evaluate``
and takes seconds to import, so that each command imports its own.
"""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import Progress

from prsr.cli.methods import describe_origins, open_methods
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
    seed_option,
    temperatures_option,
    timed,
    training_option,
)
from prsr.data.dataset import SuperResolutionImages
from prsr.utils.messages import printable


@click.command("evaluate")
@data_option
@model_option
@baselines_option
@training_option
@temperatures_option(1.0)
@click.option("--samples", default=2, type=click.IntRange(1), help="To draw of each image.")
@images_option(None)
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
    """The paper's table: how near the truth and the input images come, how much they differ.

    Every figure is a mean over images with its 95% interval. pSNR, SSIM and MS-SSIM are against
    the truth; consistency is the mean squared error between the input and the reduced output,
    where white is 1; diversity is 1 − MS-SSIM between samples of one input. Bits per dimension
    are those of whole models and of their networks alone; the gap is what the prior brings.

    \b
    prsr evaluate --data faces-test.npy --temperature 1.0 --temperature 0.8
    prsr evaluate --data faces-test.npy --model runs/faces/model --training-data faces-train.npy \\
        --baseline bicubic --baseline nearest --baseline runs/l2/model
    """  # noqa: D301  (\b keeps lines apart, and must be that character)
    from prsr.evaluation.compare import compare
    from prsr.evaluation.metrics import describe_measures
    from prsr.evaluation.tables import as_markdown, check_tables, write_tables

    check_tables(out, overwrite)

    methods = open_methods(model, baselines, training_data, device)
    config = methods[next(iter(methods))].config
    images = SuperResolutionImages.open(data, config, progress=True).first(count)
    if len(images) < 2:
        raise ValueError("there must be two images at least, or there is no interval")
    about = {
        "images": printable(f"{len(images):,} of {data}"),
        "samples": f"{samples} of each image, seed {seed}",
        **describe_origins(model, baselines, training_data, choose_device(device)),
        **describe_measures(*images.pixels.shape[2:]),
    }
    with Progress(transient=True, console=console) as progress:
        found = compare(
            methods, images, temperatures, samples=samples, seed=seed, progress=progress
        )
    click.echo(as_markdown(found, about))
    out.mkdir(parents=True, exist_ok=True)
    timed(lambda: write_tables(found, about, out), "tables")
