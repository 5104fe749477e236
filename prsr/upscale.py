"""Picture files to picture files: what ``prsr sample`` does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, groupby
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor

from prsr.baselines import Method
from prsr.checks import check_integer, check_temperature
from prsr.config import PRSRConfig
from prsr.images import (
    SUFFIXES,
    find_pictures,
    high_resolution,
    read_picture,
    reduce,
    save_picture,
    to_array,
    to_picture,
)
from prsr.sheets import Comparison, comparison_sheet

SHEET_NAME = "contact-sheet.png"
SHEET_ROWS = 24
CHUNK = 64  # draws at a time: what an interruption can lose


@dataclass(frozen=True)
class Upscaling:
    """A request of files.

    Attributes:
        pictures: files, or folders of files.
        out: a folder for single pictures and a contact sheet, or a picture file for the sheet.
        samples: to draw of each picture.
        temperature: of the draws.
        seed: of the noise; picture i, in order of name, draws with the noise of index i.
        low_resolution: take the pictures as they are instead of reducing them first.
    """

    pictures: Sequence[Path]
    out: Path
    samples: int
    temperature: float
    seed: int
    low_resolution: bool

    def __post_init__(self) -> None:
        check_temperature(self.temperature, 1)
        check_integer(self.seed, "seed", 0, 2**64)

    @property
    def sheet(self) -> Path:
        """Where the contact sheet goes."""
        return self.out if self.only_sheet else self.out / SHEET_NAME

    @property
    def only_sheet(self) -> bool:
        """Whether ``out`` names a picture file rather than a folder."""
        return self.out.suffix.lower() in SUFFIXES and not self.out.is_dir()


def upscale(sampler: Method, request: Upscaling) -> list[Path]:
    """Draw the pictures and write them; each file appears whole, as soon as it is drawn.

    Returns:
        What a user would look at first: the contact sheet and, if there is one, the folder.

    Raises:
        FileNotFoundError: a picture is missing, a folder is empty, or there is no place to write.
        ValueError: a file is no picture, or an output would replace an input.
    """
    files = find_pictures(request.pictures, None if request.only_sheet else request.out)
    names = output_names(files, request)
    pairs = [read_pair(file, sampler.config, request.low_resolution) for file in files]
    prepare_outputs(files, names, request)

    shown: list[Comparison] = []
    with Progress(transient=True) as progress:
        task = progress.add_task("pictures", total=len(files))
        for first, last in chunks(pairs, max(1, CHUNK // request.samples)):
            drawn = sampler.sample(
                torch.stack([low for low, _ in pairs[first:last]]),
                request.temperature,
                seed=request.seed,
                num_samples=request.samples,
                first_index=first,
                progress=progress,
            )
            for (low, truth), samples, outputs in zip(
                pairs[first:last], drawn, names[first:last], strict=True
            ):
                for output, sample in zip(outputs, samples.numpy(), strict=False):
                    save_picture(to_picture(sample, sampler.config), output)
                if len(shown) < SHEET_ROWS:
                    shown.append((low, samples, truth))
            progress.advance(task, last - first)
    save_picture(comparison_sheet(shown, sampler.config), request.sheet)
    return [request.sheet] if request.only_sheet else [request.out, request.sheet]


def output_names(files: list[Path], request: Upscaling) -> list[list[Path]]:
    """The files to write for each picture; a name that is taken already gets a number."""
    if request.only_sheet:
        return [[] for _ in files]
    ends = [""] if request.samples == 1 else [f"_{s + 1}" for s in range(request.samples)]
    taken, names = {SHEET_NAME}, []
    for file in files:
        for number in count(1):
            stem = file.stem if number == 1 else f"{file.stem}~{number}"
            group = [f"{stem}{end}.png" for end in ends]
            if taken.isdisjoint(group):
                break
        taken.update(group)
        names.append([request.out / name for name in group])
    return names


def prepare_outputs(files: list[Path], names: list[list[Path]], request: Upscaling) -> None:
    """Make the folder; refuse to write over what is read, or where nothing can be written.

    Raises:
        FileNotFoundError: the folder of a sheet does not exist.
        PermissionError: the folder cannot be written to.
        ValueError: an output would replace an input.
    """
    outputs = {path.resolve() for group in names for path in group} | {request.sheet.resolve()}
    for output in outputs:
        if output.is_dir():
            raise IsADirectoryError(f"{output} is a folder: a picture was to be written there")
    for file in files:
        if file.resolve() in outputs:
            raise ValueError(f"{file} would be replaced by its own enlargement: choose another out")
    if not request.only_sheet:
        request.out.mkdir(parents=True, exist_ok=True)
    folder = request.sheet.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder} to write {request.sheet.name} to")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"cannot write to the folder {folder}")


def read_pair(file: Path, config: PRSRConfig, low_resolution: bool) -> tuple[Tensor, Tensor | None]:
    """The low-resolution picture ``uint8 [D, h, w]``, and the truth where there is one."""
    picture = read_picture(file, config)
    if low_resolution:
        return torch.from_numpy(to_array(picture, config)), None
    hr = high_resolution(picture, config)
    return torch.from_numpy(reduce(hr[None], config)[0]), torch.from_numpy(hr)


def chunks(pairs: list[tuple[Tensor, Tensor | None]], length: int) -> list[tuple[int, int]]:
    """Ranges of neighbours of one size, none longer than ``length``."""
    ranges, start = [], 0
    for _, group in groupby(pairs, key=lambda pair: pair[0].shape):
        stop = start + len(list(group))
        ranges += [(a, min(a + length, stop)) for a in range(start, stop, length)]
        start = stop
    return ranges
