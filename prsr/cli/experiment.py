"""``prsr experiment``."""

from __future__ import annotations

from pathlib import Path

import click

from prsr.cli.options import (
    PATH,
    choose_device,
    device_option,
    out_option,
    seed_option,
    timed,
)
from prsr.experiments.corner_digits import read_digits


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
    test digits, and counts the images that hold exactly one digit, in one corner.
    """
    from prsr.experiments.corner_digits import place_digits
    from prsr.experiments.corners import run_corners

    training, testing = (
        place_digits(read_digits(path), corner_seed)
        for path, corner_seed in ((data, seed), (test, seed + 1))
    )

    def run() -> list[Path]:
        table = run_corners(training, testing, steps, out, seed, choose_device(device))
        click.echo(table.read_text(encoding="utf-8"))
        return [out / "corners.png", table]

    timed(run, f"{len(training)} digits, {steps} steps of each model")
