"""``prsr figure``.

matplotlib is optional (the extra ``evaluate``) and slow to import, so each command imports
:mod:`prsr.evaluation.plots` when it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
from torch import Tensor

from prsr.cli.compared_methods import open_methods
from prsr.cli.options import (
    PATH,
    Command,
    baselines_option,
    check_value,
    data_option,
    device_option,
    images_option,
    load_model,
    model_option,
    run_and_report,
    samples_option,
    seed_option,
    temperature_option,
    temperatures_option,
    training_option,
)
from prsr.config import PRSRConfig
from prsr.data.dataset import SuperResolutionImages
from prsr.sampling.method_for import method_for
from prsr.sampling.sampler import Sampler
from prsr.utils.files import check_folder

OVERWRITE_KEY = "prsr.overwrite"
"""Key of the value of --overwrite in the metadata of a click context."""


def figure_option(default: str, animated: bool = False) -> Callable[[Command], Command]:
    """The options --out and --overwrite of a figure, checked before the command starts."""

    def check(path: Path) -> None:
        from prsr.evaluation.plots import ANIMATION_FORMATS, FORMATS, check_plot_path

        overwrite = click.get_current_context().meta[OVERWRITE_KEY]
        check_plot_path(path, ANIMATION_FORMATS if animated else FORMATS, overwrite=overwrite)
        check_folder(path.parent)

    def store(context: click.Context, option: click.Parameter, value: bool) -> None:
        context.meta[OVERWRITE_KEY] = value

    out = click.option(
        "-o",
        "--out",
        default=default,
        type=PATH,
        callback=check_value(check),
        help="File to write; its suffix selects the format.",
    )
    overwrite = click.option(
        "--overwrite",
        is_flag=True,
        is_eager=True,  # the check of --out needs its value
        expose_value=False,
        callback=store,
        help="Also replace an existing file that prsr did not write.",
    )
    return lambda command: out(overwrite(command))


@click.group()
def figure() -> None:
    """Make one of the paper's figures."""


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
    """Inputs, samples by every method, and the truth."""
    from prsr.evaluation.plots import methods_figure, save_figure

    methods = open_methods(model, baselines, training_data, device)
    lr, hr = first_pairs(data, next(iter(methods.values())).config, count)
    save_and_report(
        lambda: save_figure(methods_figure(methods, lr, hr, temperature, seed), out), out
    )


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
    """Samples at several temperatures, from the same noise."""
    from prsr.evaluation.plots import save_figure, temperatures_figure

    loaded = load_model(model, device)
    lr, hr = first_pairs(data, loaded.config, count)
    method = method_for(loaded)
    save_and_report(
        lambda: save_figure(temperatures_figure(method, lr, hr, temperatures, seed), out), out
    )


@figure.command("samples")
@data_option
@model_option
@samples_option(8)
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
    """Several samples of each input."""
    from prsr.evaluation.plots import samples_figure, save_figure

    loaded = load_model(model, device)
    lr, hr = first_pairs(data, loaded.config, count)
    method = method_for(loaded)
    save_and_report(
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
    """Samples growing row by row: an animated GIF or WebP."""
    from prsr.evaluation.plots import growth_animation, save_animation

    loaded = load_model(model, device)
    method = method_for(loaded)
    if not isinstance(method, Sampler):
        raise ValueError(
            f"{model} is a model of the method {loaded.method}, which does not sample row by row"
        )
    lr, _ = first_pairs(data, loaded.config, count)
    save_and_report(
        lambda: save_animation(growth_animation(method, lr, temperature, seed), out), out
    )


@figure.command("curves")
@click.argument("runs", nargs=-1, required=True, type=PATH)
@figure_option("curves.png")
def curves_command(runs: tuple[Path, ...], out: Path) -> None:
    """Training curves of RUNS, folders written by `prsr train`."""
    from prsr.evaluation.plots import curves_figure, save_figure

    save_and_report(lambda: save_figure(curves_figure(runs), out), out)


def first_pairs(data: Path, config: PRSRConfig, count: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` pairs of a data set: ``uint8 [N, D, h, w]`` and ``[N, D, H, W]``."""
    images = SuperResolutionImages.open(data, config, progress=True)
    return images.batch(slice(count))


def save_and_report(save: Callable[[], None], out: Path) -> None:
    """Save a figure to ``out`` and print its path and the time."""

    def work() -> list[Path]:
        save()
        return [out]

    run_and_report(work, "figure")
