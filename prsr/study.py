"""The commands of a study: ``prsr evaluate``, ``experiment`` and ``figure``.

What they stand on (torchmetrics, SciPy, scikit-learn, matplotlib) comes with the extra ``evaluate``
and takes seconds to import, so that each command imports its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
from rich.progress import Progress
from torch import Tensor

from prsr.baselines import Bicubic, Method, Nearest, method_of
from prsr.checks import check_temperature
from prsr.config import PRSRConfig
from prsr.corners import read_digits
from prsr.data import SuperResolutionPictures
from prsr.options import PATH, choose_device, console, device_option, load, model_option, timed
from prsr.sampling import Sampler

Command = Callable[..., None]


class ListsCommand(click.Command):
    """A command whose repeatable options take lists: ``--x 1 2`` is ``--x 1 --x 2``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give every further value its option's name, then parse as usual."""
        lists = {
            name
            for option in self.params
            if isinstance(option, click.Option) and option.multiple
            for name in option.opts
        }
        spelt: list[str] = []
        current = None
        for place, word in enumerate(args):
            if word.startswith("-"):
                current = word if word in lists else None
            elif current and args[place - 1] != current:
                spelt.append(current)
            spelt.append(word)
        return super().parse_args(ctx, spelt)


data_option = click.option(
    "--data", required=True, type=PATH, help="A folder of pictures, or a .npy array file."
)
baselines_option = click.option(
    "--baselines",
    multiple=True,
    help="To compare with: bicubic, nearest, and models that `prsr train --method` made.",
)
training_option = click.option(
    "--training-data", type=PATH, help="Like --data, what `nearest` looks among."
)
seed_option = click.option("--seed", default=0, help="Of the noise.")
warmth_option = click.option("--temperature", default=1.0, help="Of the draws.")
samples_option = click.option(
    "--samples", default=8, type=click.IntRange(1), help="To draw of each picture."
)


def temperatures_option(*default: float) -> Callable[[Command], Command]:
    """The option --temperature where it takes several."""
    return click.option(
        "--temperature",
        "temperatures",
        multiple=True,
        type=float,
        default=default,
        help="One or several: smaller is sharper, 0 takes the likeliest level. τ is the inverse.",
    )


def pictures_option(default: int | None) -> Callable[[Command], Command]:
    """The option --pictures; None stands for all."""
    described = "The first so many." if default else "The first so many.  [default: all]"
    return click.option(
        "--pictures", "count", default=default, type=click.IntRange(1), help=described
    )


def out_option(default: str, described: str) -> Callable[[Command], Command]:
    """The option --out."""
    return click.option("-o", "--out", default=default, type=PATH, help=described)


def figure_option(default: str, animated: bool = False) -> Callable[[Command], Command]:
    """The option --out of a figure, looked at before any work is done."""

    def checked(context: click.Context, option: click.Parameter, path: Path) -> Path:
        from prsr.figures import ANIMATION_FORMATS, FORMATS, check_target

        check_target(path, ANIMATION_FORMATS if animated else FORMATS)
        return path

    described = "The figure; its suffix says the format."
    return click.option("-o", "--out", default=default, type=PATH, callback=checked, help=described)


@click.command("evaluate", cls=ListsCommand)
@data_option
@model_option
@baselines_option
@training_option
@temperatures_option(1.0)
@click.option("--samples", default=2, type=click.IntRange(1), help="To draw of each picture.")
@pictures_option(None)
@seed_option
@out_option("evaluation", "Folder for table.json, table.csv and table.md.")
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
    device: str,
) -> None:
    """The paper's table: how near the truth and the input pictures come, how much they differ.

    Every figure is a mean over pictures with its 95% interval. pSNR, SSIM and MS-SSIM are against
    the truth; consistency is the mean squared error between the input and the reduced output,
    where white is 1; diversity is 1 − MS-SSIM between samples of one input. Bits per dimension
    are those of whole models and of their networks alone; the gap is what the prior brings.

    \b
    prsr evaluate --data faces-test.npy --temperature 1.0 0.909 0.833
    prsr evaluate --data faces-test.npy --model runs/faces/model --training-data faces-train.npy \\
        --baselines bicubic nearest runs/l2/model runs/independent/model
    """  # noqa: D301  (\b keeps lines apart, and must be that character)
    from prsr.comparison import compare
    from prsr.metrics import describe_measures
    from prsr.tables import as_markdown, write_tables

    for temperature in temperatures:
        check_temperature(temperature, 1)
    methods = open_methods(model, baselines, training_data, device)
    config = methods[next(iter(methods))].config
    pictures = SuperResolutionPictures.open(data, config, progress=True).first(count)
    if len(pictures) < 2:
        raise ValueError("there must be two pictures at least, or there is no interval")
    about = {
        "pictures": f"{len(pictures):,} of {data.name}",
        "samples": f"{samples} of each picture, seed {seed}",
        **describe_measures(*pictures.pixels.shape[2:]),
    }
    out.mkdir(parents=True, exist_ok=True)
    with Progress(transient=True, console=console) as progress:
        found = compare(
            methods, pictures, temperatures, samples=samples, seed=seed, progress=progress
        )
    click.echo(as_markdown(found, about))
    timed(lambda: write_tables(found, about, out), "tables")


def open_methods(
    model: str, baselines: tuple[str, ...], training_data: Path | None, device: str
) -> dict[str, Method]:
    """The methods to compare by label, in the order of the paper's figures: the model comes last.

    Raises:
        FileNotFoundError: a model or the training data is missing.
        ValueError: a model does not fit the first, or ``nearest`` has nothing to look among.
    """
    main = load(model, device)
    methods: dict[str, Method] = {}
    for name in baselines:
        if name == "bicubic":
            methods[name] = Bicubic(main.config)
        elif name == "nearest":
            if training_data is None:
                raise ValueError("the baseline nearest needs --training-data to look among")
            among = SuperResolutionPictures.open(training_data, main.config, progress=True)
            methods[name] = Nearest(among)
        else:
            baseline = load(name, device)
            if sizes(baseline.config) != sizes(main.config):
                raise ValueError(
                    f"{name} enlarges other pictures than {model}: channels, levels, scale, height "
                    f"and width are {sizes(baseline.config)}, not {sizes(main.config)}"
                )
            methods[label(baseline.method, name, methods)] = method_of(baseline)
    methods[label(main.method, model, methods)] = method_of(main)
    return methods


def sizes(config: PRSRConfig) -> tuple[int, ...]:
    """The numbers that tell which pictures a model takes and makes."""
    return (
        config.channels,
        config.levels,
        config.scale,
        config.low_height,
        config.low_width,
    )


def label(method: str, name: str, taken: dict[str, Method]) -> str:
    """A method's label; where it is taken, with the name of the model."""
    return method if method not in taken else f"{method} ({name})"


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
@click.option("--seed", default=0, help="Of corners, first weights, order and noise.")
@device_option
def corners(data: Path, test: Path, steps: int, out: Path, seed: int, device: str) -> None:
    """A digit stands top left or bottom right, and the input does not tell: who commits?

    Trains L2 regression, independent cross-entropy and the recursive model, lets each enlarge the
    test digits, and counts the pictures that hold exactly one digit, in one corner.
    """
    from prsr.corners import place_digits
    from prsr.experiments import run_corners

    training, testing = (
        place_digits(read_digits(path), corner_seed)
        for path, corner_seed in ((data, seed), (test, seed + 1))
    )

    def run() -> list[Path]:
        table = run_corners(training, testing, steps, out, seed, choose_device(device))
        click.echo(table.read_text(encoding="utf-8"))
        return [out / "corners.png", table]

    timed(run, f"{len(training)} digits, {steps} steps of each model")


@click.group()
def figure() -> None:
    """Draw one of the paper's figures."""


@figure.command("methods", cls=ListsCommand)
@data_option
@model_option
@baselines_option
@training_option
@warmth_option
@pictures_option(8)
@seed_option
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
    from prsr.figures import methods_figure, save_figure

    methods = open_methods(model, baselines, training_data, device)
    lr, hr = shown(data, next(iter(methods.values())).config, count)
    written(lambda: save_figure(methods_figure(methods, lr, hr, temperature, seed), out), out)


@figure.command("temperatures", cls=ListsCommand)
@data_option
@model_option
@temperatures_option(1.2, 1.0, 0.909, 0.833, 0.5, 0.0)
@pictures_option(6)
@seed_option
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
    from prsr.figures import save_figure, temperatures_figure

    loaded = load(model, device)
    lr, hr = shown(data, loaded.config, count)
    method = method_of(loaded)
    written(lambda: save_figure(temperatures_figure(method, lr, hr, temperatures, seed), out), out)


@figure.command("samples")
@data_option
@model_option
@samples_option
@warmth_option
@pictures_option(4)
@seed_option
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
    from prsr.figures import samples_figure, save_figure

    loaded = load(model, device)
    lr, hr = shown(data, loaded.config, count)
    method = method_of(loaded)
    written(
        lambda: save_figure(samples_figure(method, lr, hr, samples, temperature, seed), out), out
    )


@figure.command("growth")
@data_option
@model_option
@warmth_option
@pictures_option(6)
@seed_option
@figure_option("growth.gif", animated=True)
@device_option
def growth_command(
    data: Path, model: str, temperature: float, count: int, seed: int, out: Path, device: str
) -> None:
    """Pictures as they grow, row by row: an animated GIF or WebP."""
    from prsr.figures import growth_animation, save_animation

    loaded = load(model, device)
    method = method_of(loaded)
    if not isinstance(method, Sampler):
        raise ValueError(f"{model} is of the method {loaded.method}: its pictures do not grow")
    lr, _ = shown(data, loaded.config, count)
    written(lambda: save_animation(growth_animation(method, lr, temperature, seed), out), out)


def shown(data: Path, config: PRSRConfig, count: int) -> tuple[Tensor, Tensor]:
    """The first so many pairs of a set."""
    pictures = SuperResolutionPictures.open(data, config, progress=True)
    return pictures.batch(slice(count))


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
    from prsr.figures import curves_figure, save_figure

    written(lambda: save_figure(curves_figure(runs), out), out)
