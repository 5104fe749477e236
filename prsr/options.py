"""What commands share: options, a model on a device, torchrun's processes, what was written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from prsr import processes
from prsr.baselines import open_model
from prsr.checkpoint import DEFAULT_MODEL
from prsr.model import TrainedModel

console = Console()


class Named(click.Path):
    """A path that is not empty: an empty one would quietly be the folder that one is in."""

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


def temperature_option(default: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option --temperature."""
    return click.option(
        "--temperature",
        default=default,
        help="Smaller is sharper and less varied; 0 takes the likeliest level.",
    )


engine_option = click.option(
    "--engine", default="auto", help="An engine (see `prsr info`), or auto for the best here."
)
device_option = click.option(
    "--device", default="auto", help="cpu, cuda, cuda:1 ...; auto takes a GPU if there is one."
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
        console.print(f"wrote {path}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"{described}: {seconds:.1f} s", soft_wrap=True, highlight=False, markup=False)


@contextmanager
def among_processes() -> Iterator[torch.device | None]:
    """Join the processes of torchrun, the first of which speaks; the device of this one, if any."""
    try:
        joined = processes.join()
        console.quiet = processes.rank() > 0
        yield joined
    finally:
        processes.leave()
