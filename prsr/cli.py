"""The command line: ``prsr sample``, ``demo``, ``train``, ``data``, ``info``, and those of a study.

What the user got wrong is told in one line with exit code 2, never as a traceback.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from prsr import processes
from prsr.baselines import MODELS, method_of
from prsr.checkpoint import DEFAULT_MODEL, bundled_inputs, bundled_models
from prsr.cli_data import data as data_group
from prsr.cli_figures import figure
from prsr.config import PRESETS, PRSRConfig
from prsr.data import SuperResolutionPictures
from prsr.images import check_place, check_size, save_picture, sheet_size
from prsr.info import facts
from prsr.model import PRSR
from prsr.options import (
    PATH,
    among_processes,
    choose_device,
    console,
    device_option,
    engine_option,
    load,
    model_option,
    overwrite_option,
    say,
    seed_option,
    temperature_option,
    timed,
)
from prsr.recipe import OPTIMIZERS, SCHEDULES, TrainSettings
from prsr.reporting import on_terminal, printable
from prsr.sampling import Sampler
from prsr.sheets import sample_sheet
from prsr.study import evaluate_command, experiment
from prsr.upscale import ABOUT_SHEET, SHEET_ROWS, Upscaling, fingerprint, upscale


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    invoke_without_command=True,
)
@click.version_option(package_name="prsr")
@click.pass_context
def app(context: click.Context) -> None:
    """Pixel recursive super resolution: draw the details that a tiny picture leaves open."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@app.command("sample")
@click.argument("pictures", nargs=-1, required=True, type=PATH)
@click.option(
    "-o",
    "--out",
    required=True,
    type=PATH,
    help=f"A folder for the pictures and a contact sheet (of the first {SHEET_ROWS}), or a picture "
    "file for the sheet alone.",
)
@model_option
@temperature_option(1.0)
@click.option("--samples", default=1, type=click.IntRange(1), help="To draw of each picture.")
@click.option(
    "--seed", type=int, help="The same seed draws the same pictures; without it, a new one."
)
@click.option(
    "--low-resolution",
    is_flag=True,
    help="The pictures are low-resolution ones already: enlarge them as they are.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Leave pictures alone that the same command has drawn already, before it was cut short.",
)
@overwrite_option
@engine_option
@click.option("--precision", default="fp32", help="fp32, fp16 or bf16.")
@device_option
def sample_command(
    pictures: tuple[Path, ...],
    out: Path,
    model: str,
    temperature: float,
    samples: int,
    seed: int | None,
    low_resolution: bool,
    resume: bool,
    overwrite: bool,
    engine: str,
    precision: str,
    device: str,
) -> None:
    """Draw high-resolution versions of PICTURES: files, folders, or array files of `prsr data`.

    Any picture will do: it is cropped in the middle and reduced to the model's input size first,
    so that the result can be compared with the original. With --low-resolution, pictures are
    enlarged as they are, whatever their size. Under torchrun each process draws a part of them.
    Pictures that cannot be read are left out and named; the exit code is then 1.

    \b
    prsr sample photo.png -o sheet.png --samples 4
    prsr sample small/ -o large/ --low-resolution --temperature 0.8 --seed 7
    torchrun --nproc-per-node 8 -m prsr sample small/ -o large/ --low-resolution --seed 7
    """  # noqa: D301  (\b keeps lines apart, and must be that character)
    with among_processes() as joined:
        resume = resume or processes.restarted()
        if seed is None and (resume or joined):
            raise ValueError("seed must be given under torchrun and to resume: all draw with one")
        seed = secrets.randbelow(2**31) if seed is None else seed
        loaded = load(model, device)
        sampler = method_of(loaded, engine, precision)
        drawing = f"engine {sampler.engine}" if isinstance(sampler, Sampler) else loaded.method
        drawer = f"{loaded.method} {fingerprint(loaded)} {precision}"
        request = Upscaling(
            pictures,
            out,
            samples,
            temperature,
            seed,
            low_resolution,
            drawer,
            resume,
            overwrite,
        )
        unreadable: list[tuple[Path, str]] = []

        def draw() -> list[Path]:
            done = upscale(sampler, request)
            unreadable.extend(done.unreadable)
            return done.written

        timed(draw, f"{drawing}, seed {seed}")
        for path, reason in unreadable:
            say(f"left out {path}: {reason}")
    if unreadable and joined is None:  # torchrun would start all anew
        click.get_current_context().exit(1)


@app.command()
@click.option("-o", "--out", default="demo.png", type=PATH, help="The contact sheet.")
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    type=click.Choice(bundled_models()),
    help="One of the bundled models.",
)
@temperature_option(0.8)
@click.option("--samples", default=4, type=click.IntRange(1), help="To draw of each picture.")
@seed_option()
@overwrite_option
@engine_option
@device_option
def demo(
    out: Path,
    model: str,
    temperature: float,
    samples: int,
    seed: int,
    overwrite: bool,
    engine: str,
    device: str,
) -> None:
    """Enlarge the 8×8 images that are bundled with a model, which it was not trained on."""
    check_place(out, overwrite=overwrite)
    sampler = Sampler(PRSR.from_pretrained(model).to(choose_device(device)), engine=engine)
    lr = bundled_inputs(model)
    check_size(out, *sheet_size(len(lr), 2 + samples, lr.shape[2] / lr.shape[3]))

    def draw() -> list[Path]:
        sheet = sample_sheet(
            sampler,
            lr,
            None,
            num_samples=samples,
            temperature=temperature,
            seed=seed,
            progress=True,
        )
        save_picture(sheet, out, ABOUT_SHEET)
        return [out]

    timed(draw, f"{len(lr)} images, {samples} samples each, engine {sampler.engine}")


@app.command("train")
@click.option(
    "--data",
    required=True,
    type=PATH,
    help="A folder of pictures, or a .npy array file: uint8 [N, D, H, W].",
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
@click.option("--batch-size", default=32, help="Pictures of a step, over all processes.")
@click.option(
    "--optimizer",
    default="rmsprop",
    type=click.Choice(list(OPTIMIZERS)),
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
    from prsr.augmentation import check_size
    from prsr.train import RunPlan, train
    from prsr.trainer import checkpoint_config, of_this_launch, unreported

    if preset and start is not None:
        raise ValueError("--preset and --from exclude each other: a model has its own numbers")
    if resume and unreported(out):
        resume = False  # it goes on where it was: at the beginning
    resume = resume or (processes.restarted() and of_this_launch(out))
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
        progress = processes.rank() == 0
        training = SuperResolutionPictures.open(data, config, any_size=augment, progress=progress)
        if augment:
            check_size(training, validated=validation is not None)
        if validation is None:
            training, validating = training.split(min(2000, max(1, len(training) // 20)), seed)
        else:
            validating = SuperResolutionPictures.open(validation, config, progress=progress)

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
        timed(run, f"{method}, {model}, {len(training)} pictures, {chosen}, {precision}")


app.add_command(data_group)


@app.command()
def info() -> None:
    """Show versions, machine, engines (and why one cannot serve here) and bundled models."""
    for heading, rows in facts().items():
        table = Table(title=heading, show_header=False, title_justify="left")
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)


app.add_command(evaluate_command)
app.add_command(experiment)
app.add_command(figure)


def main() -> None:
    """Run the command line; the exit code is 2 after a mistake of the user's, 130 after Ctrl-C."""
    # What the hub's client has to say about each attempt, our own error says once.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    with on_terminal():
        run()


def run() -> None:
    """Run the command line where what it says can be shown; see :func:`main`."""
    try:
        sys.exit(app(standalone_mode=False))
    except (click.exceptions.Abort, KeyboardInterrupt):
        print("prsr: interrupted; every file that was written is whole", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        fail(error.format_message())
    except Exception as error:
        if os.environ.get("PRSR_TRACEBACK"):
            raise
        known = isinstance(error, (OSError, ValueError, TypeError, ImportError, ArithmeticError))
        fail(
            str(error)
            if known
            else f"{type(error).__name__}: {error} (PRSR_TRACEBACK=1 shows more)"
        )


def fail(message: str) -> None:
    """End with one line on standard error and exit code 2."""
    line = printable(" ".join(message.split())) or "it failed without a message"
    print(f"prsr: {line}", file=sys.stderr)
    sys.exit(2)
