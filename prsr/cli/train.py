"""``prsr train``."""

from __future__ import annotations

from pathlib import Path

import click

from prsr.cli.options import (
    PATH,
    choose_device,
    device_option,
    run_and_report,
    torchrun_processes,
)
from prsr.config import PRESETS, PRSRConfig
from prsr.models.prsr import PRSR
from prsr.models.registry import MODELS
from prsr.training.loop import RunPlan, train
from prsr.training.settings import OPTIMIZERS, SCHEDULES, TrainSettings
from prsr.training.trainer import checkpoint_config, should_resume
from prsr.training.validation_split import open_datasets
from prsr.utils import distributed


@click.command("train")
@click.option(
    "--data",
    required=True,
    type=PATH,
    help="Training images: a folder, or a .npy array file, uint8 [N, D, H, W].",
)
@click.option("--out", required=True, type=PATH, help="Folder of the run.")
@click.option(
    "--steps",
    required=True,
    type=int,
    help="Step to stop at, counted from the start of the run.",
)
@click.option(
    "--method",
    default=PRSR.method,
    type=click.Choice(list(MODELS)),
    help="Model to train: the paper's (recursive) or a baseline.",
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help="Configuration of the model.  [default: paper]",
)
@click.option(
    "--from",
    "start",
    help="Start from the weights of this model (named as in `prsr sample --model`) instead of "
    "random weights of a preset. Ignored with --resume.",
)
@click.option(
    "--validation",
    type=PATH,
    help="Validation images: a folder, or a .npy array file.  [default: held out of --data]",
)
@click.option(
    "--augment",
    is_flag=True,
    help="Flip training images at random, and crop those of an array file at random if they are "
    "larger than the model's.",
)
@click.option("--batch-size", default=32, help="Images per step, over all processes.")
@click.option(
    "--optimizer",
    default="rmsprop",
    type=click.Choice(OPTIMIZERS),
    help="Optimizer: RMSProp, as in the re-implementations of the paper, or AdamW.",
)
@click.option("--learning-rate", default=4e-4, help="Learning rate after the warm-up.")
@click.option(
    "--warmup", default=0, help="Number of steps over which the learning rate rises from zero."
)
@click.option(
    "--schedule",
    default="halve",
    type=click.Choice(SCHEDULES),
    help="How the learning rate decreases: halved every --halve-every steps; linear, to zero over "
    "the last half of --schedule-steps; or cosine, to zero over all of them.",
)
@click.option(
    "--schedule-steps",
    type=int,
    help="Step at which the schedules linear and cosine reach zero. Set it if the run will be "
    "continued after --steps.  [default: --steps]",
)
@click.option("--halve-every", default=500_000, help="Steps between halvings, for halve.")
@click.option(
    "--ema",
    type=float,
    help="Decay of an exponential moving average of the weights, such as 0.999. The average is "
    "then validated, sampled and saved.  [default: no average]",
)
@click.option("--clip", default=1.0, help="Largest gradient norm; larger gradients are scaled.")
@click.option("--seed", default=0, help="Seed of the initial weights and the data order.")
@click.option(
    "--precision",
    default="auto",
    help="Arithmetic: fp32, bf16 (mixed precision), or auto: bf16 on a GPU, fp32 on a CPU.",
)
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the model with torch.compile, which takes about a minute; for GPUs.",
)
@click.option(
    "--report-every",
    default=1000,
    help="Steps between reports: validation, sample sheet and checkpoint.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Resume from the checkpoint in --out, or start if the run has not written one yet.",
)
@device_option
def train_command(
    data: Path,
    out: Path,
    steps: int,
    method: str,
    preset: str | None,
    start: str | None,
    validation: Path | None,
    augment: bool,
    batch_size: int,
    optimizer: str,
    learning_rate: float,
    warmup: int,
    schedule: str,
    schedule_steps: int | None,
    halve_every: int,
    ema: float | None,
    clip: float,
    seed: int,
    precision: str,
    compiled: bool,
    report_every: int,
    resume: bool,
    device: str,
) -> None:
    """Train a model, by default with the paper's recipe.

    The folder of the run gets checkpoint.safetensors, to resume from; model/, to sample with;
    sheets/, with samples; and TensorBoard event files. An interrupted run resumes exactly from its
    last checkpoint if the same command is run with --resume. Under torchrun the processes share
    each batch; after a restart by --max-restarts they resume without --resume.

    \b
    prsr train --data faces/ --preset compact --out runs/faces --steps 20000
    prsr train --data faces/ --from runs/faces/model --out runs/more --steps 5000
    prsr train --data faces.npy --out runs/gpu --steps 40000 --batch-size 256 --compile \\
        --optimizer adamw --learning-rate 1e-3 --warmup 300 --schedule linear --ema 0.999
    torchrun --nproc-per-node 8 --max-restarts 3 -m prsr train --data faces.npy ...
    prsr sample photo.png -o sheet.png --model runs/faces/model
    """  # noqa: D301  (\b is click's mark for a block that is not rewrapped)
    if preset and start is not None:
        raise ValueError("--preset and --from exclude each other: --from has its own configuration")
    resume = should_resume(out, requested=resume)
    if schedule_steps is None and schedule != "halve":
        schedule_steps = steps
    start_model = None
    if start is None:
        config = PRSRConfig.preset(preset or "paper")
    elif resume:
        config = checkpoint_config(out)
    else:
        start_model = MODELS[method].from_pretrained(start)
        config = start_model.config
    with torchrun_processes() as process_device:
        chosen = process_device or choose_device(device)
        if precision == "auto":
            precision = "bf16" if chosen.type == "cuda" else "fp32"
        settings = TrainSettings(
            config,
            batch_size=batch_size,
            learning_rate=learning_rate,
            halve_every=halve_every,
            clip=clip,
            seed=seed,
            precision=precision,
            method=method,
            augment=augment,
            optimizer=optimizer,
            ema=ema,
            warmup=warmup,
            schedule=schedule,
            schedule_steps=schedule_steps,
        )
        plan = RunPlan(out, steps, report_every)
        training_images, validation_images = open_datasets(
            data,
            validation,
            config,
            augment=augment,
            seed=seed,
            progress=distributed.rank() == 0,
        )

        def work() -> list[Path]:
            train(
                settings,
                plan,
                training_images,
                validation_images,
                chosen,
                start=start_model,
                resume=resume,
                compiled=compiled,
            )
            return [out / "model"]

        origin = f"preset {preset or 'paper'}" if start is None else f"from {start}"
        origin = "resumed" if resume else origin
        run_and_report(
            work, f"{method}, {origin}, {len(training_images)} images, {chosen}, {precision}"
        )
