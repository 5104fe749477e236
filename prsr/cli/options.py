"""Shared by the commands: options, model and device, torchrun's processes, and printed output."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from prsr.models.base import TrainedModel
from prsr.models.model_files import DEFAULT_MODEL
from prsr.models.registry import open_model
from prsr.utils import distributed
from prsr.utils.argument_checks import check_integer, check_one_temperature
from prsr.utils.files import check_folder
from prsr.utils.terminal_messages import printable

console = Console()

Command = Callable[..., None]


class NonEmptyPath(click.Path):
    """A path option. An empty string is an error; pathlib would read it as the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path."""
        if not os.fspath(value):
            self.fail("a path must not be empty", param, ctx)
        return Path(value)


PATH = NonEmptyPath()

model_option = click.option(
    "--model",
    default=DEFAULT_MODEL,
    help="A bundled model (see `prsr info`), a folder, or the id of a model on the Hugging Face "
    "hub: owner/name.",
)


def check_value(check: Callable[[Any], object]) -> Callable[..., Any]:
    """A click callback that applies ``check`` to an option's value, or to each of several.

    An exception of the check becomes an error of that option, before the command starts.
    """

    def callback(context: click.Context, option: click.Option, value: Any) -> Any:
        for one in value if option.multiple else (value,):
            try:
                check(one)
            except (OSError, TypeError, ValueError) as error:
                raise click.BadParameter(str(error), context, option) from error
        return value

    return callback


temperature_callback = check_value(check_one_temperature)


def temperature_option(default: float) -> Callable[[Command], Command]:
    """The option --temperature with one value."""
    return click.option(
        "--temperature",
        default=default,
        callback=temperature_callback,
        help="Sampling temperature: lower is sharper and less varied, 0 takes the most likely "
        "level of each sub-pixel. The paper's τ is its inverse.",
    )


engine_option = click.option(
    "--engine",
    default="auto",
    help="Engine to sample with (see `prsr info`); auto takes the best one available.",
)
device_option = click.option(
    "--device",
    default="auto",
    help="Device to compute on: cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.",
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Also replace existing files that prsr did not write."
)
data_option = click.option(
    "--data", required=True, type=PATH, help="Test images: a folder, or a .npy array file."
)
baselines_option = click.option(
    "--baseline",
    "baselines",
    multiple=True,
    help="Method to compare with: bicubic, nearest, or a model trained by `prsr train --method`. "
    "May be repeated.",
)
training_option = click.option(
    "--training-data",
    type=PATH,
    help="Training images that the baseline `nearest` searches: a folder, or a .npy array file.",
)


def samples_option(default: int) -> Callable[[Command], Command]:
    """The option --samples."""
    return click.option(
        "--samples", default=default, type=click.IntRange(1), help="Number of samples per image."
    )


def seed_option(
    help_text: str = "Seed of the noise.", below: int = 2**64
) -> Callable[[Command], Command]:
    """The option --seed, an integer from 0 to ``below`` − 1."""
    callback = check_value(lambda seed: check_integer(seed, "seed", 0, below))
    return click.option("--seed", default=0, callback=callback, help=help_text)


def temperatures_option(*default: float) -> Callable[[Command], Command]:
    """The option --temperature with several values."""
    return click.option(
        "--temperature",
        "temperatures",
        multiple=True,
        type=float,
        default=default,
        callback=temperature_callback,
        help="Sampling temperature: lower is sharper and less varied, 0 takes the most likely "
        "level of each sub-pixel. The paper's τ is its inverse. May be repeated.",
    )


def images_option(default: int | None) -> Callable[[Command], Command]:
    """The option --images, the number of images to use; None stands for all."""
    help_text = "Number of images to use, counted from the first."
    return click.option(
        "--images",
        "count",
        default=default,
        type=click.IntRange(1),
        help=help_text if default else f"{help_text}  [default: all]",
    )


def out_option(default: str, help_text: str) -> Callable[[Command], Command]:
    """The option --out for a folder."""
    return click.option(
        "-o",
        "--out",
        default=default,
        type=PATH,
        callback=check_value(check_folder),
        help=help_text,
    )


def choose_device(name: str) -> torch.device:
    """The device called ``name``; "auto" is the first GPU, or the CPU if there is none.

    Raises:
        ValueError: it is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} is not available: {reason}") from error
    return device


def load_model(model: str, device: str) -> TrainedModel:
    """A saved model of any method, on a device; see :func:`choose_device` for its names."""
    return open_model(model).to(choose_device(device))


def run_and_report(work: Callable[[], list[Path]], description: str) -> None:
    """Do the work, then print the paths that it returns and how long it took."""
    start = time.perf_counter()
    written = work()
    seconds = time.perf_counter() - start
    for path in written:
        print_line(f"wrote {path}")
    print_line(f"{description}: {seconds:.1f} s")


def print_line(line: str) -> None:
    """Print a line that may contain file names: characters that cannot be printed are escaped."""
    console.print(printable(line), soft_wrap=True, highlight=False, markup=False)


@contextmanager
def torchrun_processes() -> Iterator[torch.device | None]:
    """Join the processes of torchrun and leave them at the end; only the first one prints.

    Yields:
        The device of this process, or None without torchrun.

    Raises:
        ConnectionError: another process has died.
    """
    try:
        device = distributed.join()
        console.quiet = distributed.rank() > 0
        yield device
    except RuntimeError as error:
        # gloo reports the death of another process in several wordings.
        if not re.search("Connection (closed|reset) by peer", str(error)):
            raise
        raise ConnectionError("another of torchrun's processes has died: see its errors") from error
    finally:
        distributed.leave()
