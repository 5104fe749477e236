"""The command ``prsr figure``.

matplotlib comes with the extra ``evaluate`` and takes a second to import: each command imports
what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
from torch import Tensor

from prsr.cli.methods import open_methods
from prsr.cli.options import (
    PATH,
    Command,
    baselines_option,
    checked,
    data_option,
    device_option,
    images_option,
    load,
    model_option,
    seed_option,
    temperature_option,
    temperatures_option,
    timed,
    training_option,
)
from prsr.config import PRSRConfig
from prsr.data.dataset import SuperResolutionImages
from prsr.sampling.baselines import method_for
from prsr.sampling.sampler import Sampler
from prsr.utils.files import check_folder

OVERWRITE = "prsr.overwrite"
"""Where a click context keeps what --overwrite says."""


def figure_option(default: str, animated: bool = False) -> Callable[[Command], Command]:
    """The options --out and --overwrite of a figure, looked at before any work is done."""

    def check(path: Path) -> None:
        from prsr.evaluation.plots import ANIMATION_FORMATS, FORMATS, check_target

        overwrite = click.get_current_context().meta[OVERWRITE]
        check_target(path, ANIMATION_FORMATS if animated else FORMATS, overwrite=overwrite)
        check_folder(path.parent)

    def keep(context: click.Context, option: click.Parameter, value: bool) -> None:
        context.meta[OVERWRITE] = value

    described = "The figure; its suffix says the format."
    out = click.option(
        "-o", "--out", default=default, type=PATH, callback=checked(check), help=described
    )
    overwrite = click.option(
        "--overwrite",
        is_flag=True,
        is_eager=True,  # for --out is checked by it
        expose_value=False,
        callback=keep,
        help="Replace a file that prsr has not written, too.",
    )
    return lambda command: out(overwrite(command))


@click.group()
def figure() -> None:
    """Draw one of the paper's figures."""


@figure.command("methods")
@data_option
@model_option
@baselines_option
@training_option
@temperature_option(1.0)
@images_option(8)
@seed_option()
@figure_option("methods.png")
@device_option
def methods_command(
    data: Path,
    model: str,
    baselines: tuple[str, ...],
    training_data: Path | None,
    temperature: float,
    count: int,
    seed: int,
    out: Path,
    device: str,
) -> None:
    """Inputs against all methods and the truth."""
    from prsr.evaluation.plots import methods_figure, save_figure

    methods = open_methods(model, baselines, training_data, device)
    lr, hr = shown(data, next(iter(methods.values())).config, count)
    written(lambda: save_figure(methods_figure(methods, lr, hr, temperature, seed), out), out)


@figure.command("temperatures")
@data_option
@model_option
@temperatures_option(1.2, 1.0, 0.909, 0.833, 0.5, 0.0)
@images_option(6)
@seed_option()
@figure_option("temperatures.png")
@device_option
def temperatures_command(
    data: Path,
    model: str,
    temperatures: tuple[float, ...],
    count: int,
    seed: int,
    out: Path,
    device: str,
) -> None:
    """Samples over temperatures, each row of the same noise."""
    from prsr.evaluation.plots import save_figure, temperatures_figure

    loaded = load(model, device)
    lr, hr = shown(data, loaded.config, count)
    method = method_for(loaded)
    written(lambda: save_figure(temperatures_figure(method, lr, hr, temperatures, seed), out), out)


@figure.command("samples")
@data_option
@model_option
@click.option("--samples", default=8, type=click.IntRange(1), help="To draw of each image.")
@temperature_option(1.0)
@images_option(4)
@seed_option()
@figure_option("samples.png")
@device_option
def samples_command(
    data: Path,
    model: str,
    samples: int,
    temperature: float,
    count: int,
    seed: int,
    out: Path,
    device: str,
) -> None:
    """Many samples of one input."""
    from prsr.evaluation.plots import samples_figure, save_figure

    loaded = load(model, device)
    lr, hr = shown(data, loaded.config, count)
    method = method_for(loaded)
    written(
        lambda: save_figure(samples_figure(method, lr, hr, samples, temperature, seed), out), out
    )


@figure.command("growth")
@data_option
@model_option
@temperature_option(1.0)
@images_option(6)
@seed_option()
@figure_option("growth.gif", animated=True)
@device_option
def growth_command(
    data: Path, model: str, temperature: float, count: int, seed: int, out: Path, device: str
) -> None:
    """Images as they grow, row by row: an animated GIF or WebP."""
    from prsr.evaluation.plots import growth_animation, save_animation

    loaded = load(model, device)
    method = method_for(loaded)
    if not isinstance(method, Sampler):
        raise ValueError(f"{model} is of the method {loaded.method}: its images do not grow")
    lr, _ = shown(data, loaded.config, count)
    written(lambda: save_animation(growth_animation(method, lr, temperature, seed), out), out)


def shown(data: Path, config: PRSRConfig, count: int) -> tuple[Tensor, Tensor]:
    """The first so many pairs of a set."""
    images = SuperResolutionImages.open(data, config, progress=True)
    return images.batch(slice(count))


def written(save: Callable[[], None], out: Path) -> None:
    """Save a figure, and say so."""

    def work() -> list[Path]:
        save()
        return [out]

    timed(work, "figure")


@figure.command("curves")
@click.argument("runs", nargs=-1, required=True, type=PATH)
@figure_option("curves.png")
def curves_command(runs: tuple[Path, ...], out: Path) -> None:
    """Training curves of RUNS, folders that `prsr train` wrote."""
    from prsr.evaluation.plots import curves_figure, save_figure

    written(lambda: save_figure(curves_figure(runs), out), out)
