"""What commands share: options, a model on a device, torchrun's processes, what was written."""

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
from prsr.models.registry import open_model
from prsr.models.saved import DEFAULT_MODEL
from prsr.utils import distributed
from prsr.utils.argument_checks import check_integer, check_temperature
from prsr.utils.files import check_folder
from prsr.utils.messages import printable

console = Console()

Command = Callable[..., None]


class Named(click.Path):
    """A path that is not empty: an empty one would no_warnings be the folder that one is in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path."""
        if not os.fspath(value):
            self.fail("a path must not be empty", param, ctx)
        return Path(value)


PATH = Named()

model_option = click.option(
    "--model",
    default=DEFAULT_MODEL,
    help="A bundled model (see `prsr info`), a folder, or an id on the hub: owner/name.",
)


def checked(check: Callable[[Any], object]) -> Callable[..., Any]:
    """A callback that holds an option's value, or each of several, against ``check``.

    What it raises is told as a mistake in that option, before any work is done.
    """

    def callback(context: click.Context, option: click.Option, value: Any) -> Any:
        for one in value if option.multiple else (value,):
            try:
                check(one)
            except (OSError, TypeError, ValueError) as error:
                raise click.BadParameter(str(error), context, option) from error
        return value

    return callback


check_warmth = checked(lambda temperature: check_temperature(temperature, 1))


def temperature_option(default: float) -> Callable[[Command], Command]:
    """The option --temperature."""
    return click.option(
        "--temperature",
        default=default,
        callback=check_warmth,
        help="Smaller is sharper and less varied; 0 takes the likeliest level.",
    )


engine_option = click.option(
    "--engine", default="auto", help="An engine (see `prsr info`), or auto for the best here."
)
device_option = click.option(
    "--device", default="auto", help="cpu, cuda, cuda:1 ...; auto takes a GPU if there is one."
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace files that prsr has not written, too."
)
data_option = click.option(
    "--data", required=True, type=PATH, help="A folder of images, or a .npy array file."
)
baselines_option = click.option(
    "--baseline",
    "baselines",
    multiple=True,
    help="To compare with: bicubic, nearest, or a model that `prsr train --method` made.  "
    "[repeatable]",
)
training_option = click.option(
    "--training-data", type=PATH, help="Like --data, what `nearest` looks among."
)


def seed_option(
    described: str = "Of the noise.", below: int = 2**64
) -> Callable[[Command], Command]:
    """The option --seed, an integer from 0 on."""
    check = checked(lambda seed: check_integer(seed, "seed", 0, below))
    return click.option("--seed", default=0, callback=check, help=described)


def temperatures_option(*default: float) -> Callable[[Command], Command]:
    """The option --temperature of a command that accepts several temperatures."""
    return click.option(
        "--temperature",
        "temperatures",
        multiple=True,
        type=float,
        default=default,
        callback=check_warmth,
        help="Smaller is sharper, 0 takes the likeliest level; the inverse of τ.  [repeatable]",
    )


def images_option(default: int | None) -> Callable[[Command], Command]:
    """The option --images; None stands for all."""
    described = "The first so many." if default else "The first so many.  [default: all]"
    return click.option(
        "--images", "count", default=default, type=click.IntRange(1), help=described
    )


def out_option(default: str, described: str) -> Callable[[Command], Command]:
    """The option --out of a folder."""
    return click.option(
        "-o", "--out", default=default, type=PATH, callback=checked(check_folder), help=described
    )


def choose_device(name: str) -> torch.device:
    """The device of that name, if it is here.

    Raises:
        ValueError: it is not.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} is not to be had here: {reason}") from error
    return device


def load(model: str, device: str) -> TrainedModel:
    """A saved model of any method on a device."""
    return open_model(model).to(choose_device(device))


def timed(work: Callable[[], list[Path]], described: str) -> None:
    """Do the work, then say what it wrote and how long it took."""
    start = time.perf_counter()
    written = work()
    seconds = time.perf_counter() - start
    for path in written:
        say(f"wrote {path}")
    say(f"{described}: {seconds:.1f} s")


def say(line: str) -> None:
    """Print a line that may hold names of files."""
    console.print(printable(line), soft_wrap=True, highlight=False, markup=False)


@contextmanager
def among_processes() -> Iterator[torch.device | None]:
    """Join the processes of torchrun, the first of which speaks; the device of this one, if any.

    Raises:
        ConnectionError: another of them has died, for which gloo has many words.
    """
    try:
        joined = distributed.join()
        console.quiet = distributed.rank() > 0
        yield joined
    except RuntimeError as error:
        if not re.search("Connection (closed|reset) by peer", str(error)):
            raise
        raise ConnectionError("another of torchrun's processes has died: see its errors") from error
    finally:
        distributed.leave()
