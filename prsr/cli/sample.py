"""``prsr sample`` and ``prsr demo``."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from prsr.cli.options import (
    PATH,
    choose_device,
    device_option,
    engine_option,
    load_model,
    model_option,
    overwrite_option,
    print_line,
    run_and_report,
    samples_option,
    seed_option,
    temperature_option,
    torchrun_processes,
)
from prsr.cli.sample_files import SHEET_PROVENANCE, SHEET_ROWS, fingerprint, sample_files
from prsr.cli.sample_paths import SampleFilesRequest
from prsr.data.contact_sheet import sheet_size
from prsr.data.write_images import check_size, check_writable, save_image
from prsr.models.model_files import DEFAULT_MODEL, bundled_inputs, bundled_models
from prsr.models.prsr import PRSR
from prsr.sampling.method_for import method_for
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
    help="Folder to write the samples and a contact sheet to, or an image file for the contact "
    f"sheet alone. The sheet shows the first {SHEET_ROWS} images.",
)
@model_option
@temperature_option(1.0)
@samples_option(1)
@click.option(
    "--seed",
    type=int,
    help="Seed of the noise: the same seed gives the same samples.  [default: a random seed]",
)
@click.option(
    "--low-resolution",
    is_flag=True,
    help="Take the images as the model's inputs, at their own size, instead of reducing them.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Keep the files that the same command wrote before it was interrupted.",
)
@overwrite_option
@engine_option
@click.option("--precision", default="fp32", help="Arithmetic of the engine: fp32, fp16 or bf16.")
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
    """Sample high-resolution versions of images.

    IMAGES are image files, folders, or .npy array files, with images of any size. They are cropped
    in the middle and reduced to the model's input size, so that samples can be compared with the
    original. With --low-resolution they are the model's inputs as they are, at their own size.
    Images that cannot be read are skipped and listed; the exit code is then 1. Under torchrun each
    process samples a share of the images.

    \b
    prsr sample photo.png -o sheet.png --samples 4
    prsr sample small/ -o large/ --low-resolution --temperature 0.8 --seed 7
    torchrun --nproc-per-node 8 -m prsr sample small/ -o large/ --low-resolution --seed 7
    """  # noqa: D301  (\b is click's mark for a block that is not rewrapped)
    with torchrun_processes() as process_device:
        resume = resume or distributed.is_restart()
        if seed is None and (resume or process_device):
            raise ValueError("seed must be given with --resume and under torchrun")
        seed = secrets.randbelow(2**31) if seed is None else seed
        loaded = load_model(model, device)
        sampler = method_for(loaded, engine, precision)
        request = SampleFilesRequest(
            images,
            out,
            samples,
            temperature,
            seed,
            low_resolution,
            f"{loaded.method} {fingerprint(loaded)} {precision}",
            resume,
            overwrite,
        )
        unreadable: list[tuple[Path, str]] = []

        def work() -> list[Path]:
            result = sample_files(sampler, request)
            unreadable.extend(result.unreadable)
            return result.written

        sampled_by = f"engine {sampler.engine}" if isinstance(sampler, Sampler) else loaded.method
        run_and_report(work, f"{sampled_by}, seed {seed}")
        for path, reason in unreadable:
            print_line(f"skipped {path}: {reason}")
    # Under torchrun, a nonzero exit code would restart all processes.
    if unreadable and process_device is None:
        click.get_current_context().exit(1)


@click.command()
@click.option(
    "-o", "--out", default="demo.png", type=PATH, help="Image file for the contact sheet."
)
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    type=click.Choice(bundled_models()),
    help="Bundled model to sample with.",
)
@temperature_option(0.8)
@samples_option(4)
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
    """Sample the images bundled with a model.

    They are 8×8 images on which the model was not trained. The result is a contact sheet.
    """
    check_writable(out, overwrite=overwrite)
    sampler = Sampler(PRSR.from_pretrained(model).to(choose_device(device)), engine=engine)
    lr = bundled_inputs(model)
    check_size(out, *sheet_size(len(lr), 2 + samples, lr.shape[2] / lr.shape[3]))

    def work() -> list[Path]:
        sampled = sampler.sample(lr, temperature, seed=seed, num_samples=samples, progress=True)
        rows = [(low, own_samples, None) for low, own_samples in zip(lr, sampled, strict=True)]
        save_image(sample_sheet(rows, sampler.config), out, SHEET_PROVENANCE)
        return [out]

    run_and_report(work, f"{len(lr)} images, {samples} samples per image, engine {sampler.engine}")
