"""``prsr train``."""

from __future__ import annotations

from pathlib import Path

import click

from prsr.cli.options import (
    PATH,
    among_processes,
    choose_device,
    device_option,
    timed,
)
from prsr.config import PRESETS, PRSRConfig
from prsr.data.dataset import SuperResolutionImages
from prsr.models.prsr import PRSR
from prsr.models.registry import MODELS
from prsr.training.recipe import OPTIMIZERS, SCHEDULES, TrainSettings
from prsr.utils import distributed


@click.command("train")
@click.option(
    "--data",
    required=True,
    type=PATH,
    help="A folder of images, or a .npy array file: uint8 [N, D, H, W].",
)
@click.option("--out", required=True, type=PATH, help="Folder of the run.")
@click.option("--steps", required=True, type=int, help="Step to end at.")
@click.option(
    "--method",
    default=PRSR.method,
    type=click.Choice(list(MODELS)),
    help="What to train: the model (recursive) or a baseline.",
)
@click.option("--preset", type=click.Choice(list(PRESETS)), help="The model.  [default: paper]")
@click.option(
    "--from",
    "start",
    help="Begin with the weights of this model (as for `prsr sample --model`), not with random "
    "ones of a preset. With --resume, the run has weights of its own: this is not read.",
)
@click.option(
    "--validation",
    type=PATH,
    help="Like --data, to validate on; without it, a part of the data is held out.",
)
@click.option(
    "--augment",
    is_flag=True,
    help="Mirror training images at random, and crop those of an array file that are larger than "
    "the model's.",
)
@click.option("--batch-size", default=32, help="Images of a step, over all processes.")
@click.option(
    "--optimizer",
    default="rmsprop",
    type=click.Choice(OPTIMIZERS),
    help="RMSProp, as the paper's re-implementations have it, or AdamW.",
)
@click.option("--learning-rate", default=4e-4, help="After the warm-up, at the start.")
@click.option("--warmup", default=0, help="Steps in which the learning rate rises to its value.")
@click.option(
    "--schedule",
    default="halve",
    type=click.Choice(SCHEDULES),
    help="How the learning rate falls: by half every --halve-every steps; by a line to zero over "
    "the last half of --steps; or by half a cosine over all of --steps.",
)
@click.option(
    "--schedule-steps",
    type=int,
    help="Step at which linear and cosine are at zero, for a run that is to go on after --steps.  "
    "[default: --steps]",
)
@click.option("--halve-every", default=500_000, help="Steps that halve the learning rate.")
@click.option(
    "--ema",
    type=float,
    help="Decay of an exponential moving average of the weights, such as 0.999: the average is "
    "then what is validated, sampled and saved.  [default: none]",
)
@click.option("--clip", default=1.0, help="Largest norm of a gradient.")
@click.option("--seed", default=0, help="Of the first weights and the order of the data.")
@click.option(
    "--precision", default="auto", help="fp32, bf16 (mixed precision), or auto: bf16 on a GPU."
)
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Compile the model with torch.compile, for GPUs; it takes a minute at the start.",
)
@click.option(
    "--report-every", default=1000, help="Steps between validations, sheets and checkpoints."
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from the checkpoint in --out, or begin if the run had written none yet.",
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
    """Train a model, as the paper does it or by another recipe.

    The run's folder gets checkpoint.safetensors to go on from, model/ to sample with, sheets/ with
    samples, and scalars for TensorBoard. A run that was killed goes on exactly where its last
    checkpoint was, with the same command and --resume. Under torchrun each batch is shared among
    processes; those that --max-restarts starts anew resume by themselves.

    \b
    prsr train --data faces/ --preset compact --out runs/faces --steps 20000
    prsr train --data faces/ --from runs/faces/model --out runs/more --steps 5000
    prsr train --data faces.npy --out runs/gpu --steps 40000 --batch-size 256 --compile \\
        --optimizer adamw --learning-rate 1e-3 --warmup 300 --schedule linear --ema 0.999
    torchrun --nproc-per-node 8 --max-restarts 3 -m prsr train --data faces.npy ...
    prsr sample photo.png -o sheet.png --model runs/faces/model
    """  # noqa: D301  (\b keeps lines apart, and must be that character)
    # TensorBoard comes with an extra, and takes a second to import.
    from prsr.training.augmentation import check_size
    from prsr.training.loop import RunPlan, train
    from prsr.training.trainer import checkpoint_config, has_no_report, is_of_this_launch

    if preset and start is not None:
        raise ValueError("--preset and --from exclude each other: a model has its own numbers")
    if resume and has_no_report(out):
        resume = False  # it goes on where it was: at the beginning
    resume = resume or (distributed.is_restart() and is_of_this_launch(out))
    if schedule_steps is None and schedule != "halve":
        schedule_steps = steps
    first = None
    if start is None:
        config = PRSRConfig.preset(preset or "paper")
    elif resume:
        config = checkpoint_config(out)
    else:
        first = MODELS[method].from_pretrained(start)
        config = first.config
    with among_processes() as joined:
        chosen = joined or choose_device(device)
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
        progress = distributed.rank() == 0
        training = SuperResolutionImages.open(data, config, any_size=augment, progress=progress)
        if augment:
            check_size(training, validated=validation is not None)
        if validation is None:
            training, validating = training.split(min(2000, max(1, len(training) // 20)), seed)
        else:
            validating = SuperResolutionImages.open(validation, config, progress=progress)

        def run() -> list[Path]:
            train(
                settings,
                plan,
                training,
                validating,
                chosen,
                start=first,
                resume=resume,
                compiled=compiled,
            )
            return [out / "model"]

        model = f"preset {preset or 'paper'}" if start is None else f"from {start}"
        model = "resumed" if resume else model
        timed(run, f"{method}, {model}, {len(training)} images, {chosen}, {precision}")
