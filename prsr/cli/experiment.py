"""``prsr experiment``."""

from __future__ import annotations

from pathlib import Path

import click

from prsr.cli.options import (
    PATH,
    choose_device,
    device_option,
    out_option,
    overwrite_option,
    run_and_report,
    seed_option,
)
from prsr.experiments.corner_digits import place_digits, read_digits


@click.group()
def experiment() -> None:
    """Run an experiment of the paper, from training to results."""


@experiment.command()
@click.option(
    "--data",
    required=True,
    type=PATH,
    help="MNIST digits to train on: a .npy array file, uint8 [N, 1, 28, 28].",
)
@click.option(
    "--test", required=True, type=PATH, help="MNIST digits to test on, in the same format."
)
@click.option("--steps", default=2000, type=click.IntRange(1), help="Training steps of each model.")
@out_option(
    "runs/corners",
    "Folder for models, figure and results. Training resumes from checkpoints in it.",
)
@seed_option("Seed of corners, initial weights, data order and noise.", below=2**63)
@device_option
@overwrite_option
def corners(
    data: Path, test: Path, steps: int, out: Path, seed: int, device: str, overwrite: bool
) -> None:
    """MNIST corners: sample a digit whose corner, of two, is not in the input.

    Trains L2 regression, independent cross-entropy and the recursive model, samples the test
    digits with each, and counts the images with exactly one digit, in one corner.
    """
    from prsr.experiments.corners import check_corners, run_corners  # needs the extra `evaluate`

    check_corners(out, overwrite)
    training, testing = (
        place_digits(read_digits(path), corner_seed)
        for path, corner_seed in ((data, seed), (test, seed + 1))
    )

    def work() -> list[Path]:
        table = run_corners(training, testing, steps, out, seed, choose_device(device))
        click.echo(table.read_text(encoding="utf-8"))
        return [out / "corners.png", table]

    run_and_report(work, f"{len(training)} digits, {steps} steps per model")
