"""``prsr sample`` and ``prsr demo``."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from prsr.cli.options import (
    PATH,
    among_processes,
    choose_device,
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
from prsr.cli.sample_files import ABOUT_SHEET, SHEET_ROWS, Upscaling, fingerprint, upscale
from prsr.data.contact_sheet import sheet_size
from prsr.data.image_files import check_size, check_writable, save_image
from prsr.models.prsr import PRSR
from prsr.models.saved import DEFAULT_MODEL, bundled_inputs, bundled_models
from prsr.sampling.baselines import method_for
from prsr.sampling.sample_sheet import sample_sheet
from prsr.sampling.sampler import Sampler
from prsr.utils import distributed


@click.command("sample")
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option(
    "-o",
    "--out",
    required=True,
    type=PATH,
    help=f"A folder for the images and a contact sheet (of the first {SHEET_ROWS}), or an image "
    "file for the sheet alone.",
)
@model_option
@temperature_option(1.0)
@click.option("--samples", default=1, type=click.IntRange(1), help="To draw of each image.")
@click.option(
    "--seed", type=int, help="The same seed draws the same images; without it, a new one."
)
@click.option(
    "--low-resolution",
    is_flag=True,
    help="The images are low-resolution ones already: enlarge them as they are.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Leave images alone that the same command has drawn already, before it was cut short.",
)
@overwrite_option
@engine_option
@click.option("--precision", default="fp32", help="fp32, fp16 or bf16.")
@device_option
def sample_command(
    images: tuple[Path, ...],
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
    """Draw high-resolution versions of IMAGES: files, folders, or array files of `prsr data`.

    Any image will do: it is cropped in the middle and reduced to the model's input size first,
    so that the result can be compared with the original. With --low-resolution, images are
    enlarged as they are, whatever their size. Under torchrun each process draws a part of them.
    Images that cannot be read are left out and named; the exit code is then 1.

    \b
    prsr sample photo.png -o sheet.png --samples 4
    prsr sample small/ -o large/ --low-resolution --temperature 0.8 --seed 7
    torchrun --nproc-per-node 8 -m prsr sample small/ -o large/ --low-resolution --seed 7
    """  # noqa: D301  (\b keeps lines apart, and must be that character)
    with among_processes() as joined:
        resume = resume or distributed.is_restart()
        if seed is None and (resume or joined):
            raise ValueError("seed must be given under torchrun and to resume: all draw with one")
        seed = secrets.randbelow(2**31) if seed is None else seed
        loaded = load(model, device)
        sampler = method_for(loaded, engine, precision)
        drawing = f"engine {sampler.engine}" if isinstance(sampler, Sampler) else loaded.method
        drawer = f"{loaded.method} {fingerprint(loaded)} {precision}"
        request = Upscaling(
            images,
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


@click.command()
@click.option("-o", "--out", default="demo.png", type=PATH, help="The contact sheet.")
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    type=click.Choice(bundled_models()),
    help="One of the bundled models.",
)
@temperature_option(0.8)
@click.option("--samples", default=4, type=click.IntRange(1), help="To draw of each image.")
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
    check_writable(out, overwrite=overwrite)
    sampler = Sampler(PRSR.from_pretrained(model).to(choose_device(device)), engine=engine)
    lr = bundled_inputs(model)
    check_size(out, *sheet_size(len(lr), 2 + samples, lr.shape[2] / lr.shape[3]))

    def draw() -> list[Path]:
        drawn = sampler.sample(lr, temperature, seed=seed, num_samples=samples, progress=True)
        rows = [(low, own, None) for low, own in zip(lr, drawn, strict=True)]
        save_image(sample_sheet(rows, sampler.config), out, ABOUT_SHEET)
        return [out]

    timed(draw, f"{len(lr)} images, {samples} samples each, engine {sampler.engine}")
