"""A request of ``prsr sample``: which image files to read and which files to write."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.data.dataset import read_array
from prsr.data.find_files import find_images
from prsr.data.image_arrays import (
    Pixels,
    high_resolution,
    pillow_mode,
    read_image,
    reduce,
    to_array,
)
from prsr.data.write_images import SUFFIXES, check_writable
from prsr.utils.argument_checks import check_integer, check_one_temperature, set_checked

Pair = tuple[Tensor, Tensor | None]
"""An input ``uint8 [D, h, w]`` and its truth ``uint8 [D, H, W]``, or None if that is unknown."""

SHEET_NAME = "contact-sheet.png"


@dataclass(frozen=True, eq=False)
class Source:
    """An image to read: an image file, or one image of an array file.

    Attributes:
        path: of the file.
        array: the content of an array file, ``uint8 [N, D, H, W]``; None for an image file.
        index: of the image in ``array``.
    """

    path: Path
    array: Pixels | None = None
    index: int = 0

    @property
    def stem(self) -> str:
        """The beginning of the names of its output files."""
        if self.array is None:
            return self.path.stem
        return f"{self.path.stem}-{self.index:0{len(str(len(self.array) - 1))}}"

    def pair(self, config: PRSRConfig, low_resolution: bool) -> Pair:
        """The model's input and its truth.

        Args:
            config: of the model.
            low_resolution: whether the image is the input as it is; otherwise it is cropped and
                resized to the truth, and reduced to the input.

        Raises:
            OSError, ValueError: the file cannot be read as an image.
        """
        if self.array is None:
            image = read_image(self.path, config)
            hr = to_array(image, config) if low_resolution else high_resolution(image, config)
        else:
            hr = np.array(self.array[self.index])
        if low_resolution:
            return torch.from_numpy(hr), None
        return torch.from_numpy(reduce(hr[None], config)[0]), torch.from_numpy(hr)


@dataclass(frozen=True)
class SampleFilesRequest:
    """What to sample, how, and where to write it.

    Attributes:
        images: image files, folders of image files, or ``.npy`` array files.
        out: a folder for the samples and a contact sheet, or an image file for the sheet alone.
        samples: number of samples per image.
        temperature: sampling temperature.
        seed: seed of the noise; image i, in order, has noise index i.
        low_resolution: whether the images are the model's inputs as they are, rather than images
            to be reduced first.
        model: identifies the model, its weights and the precision in the files' provenance.
        resume: whether to keep files that this request has already written.
        overwrite: whether files that prsr did not write may be replaced.

    Raises:
        TypeError, ValueError: temperature, seed or ``out`` is invalid.
    """

    images: Sequence[Path]
    out: Path
    samples: int
    temperature: float
    seed: int
    low_resolution: bool
    model: str
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        set_checked(self, "temperature", check_one_temperature(self.temperature))
        set_checked(self, "seed", check_integer(self.seed, "seed", 0, 2**64))
        set_checked(self, "samples", check_integer(self.samples, "samples", 1, 2**32))
        suffix = self.out.suffix.lower()
        if suffix in Image.registered_extensions() and suffix not in SUFFIXES:
            accepted = ", ".join(sorted(SUFFIXES))
            raise ValueError(f"out must be a folder or an image file ({accepted}), got {self.out}")

    @property
    def sheet_only(self) -> bool:
        """Whether ``out`` is an image file rather than a folder."""
        return self.out.suffix.lower() in SUFFIXES and not self.out.is_dir()

    @property
    def sheet(self) -> Path:
        """The path of the contact sheet."""
        return self.out if self.sheet_only else self.out / SHEET_NAME

    def provenance(self, index: int, lr: Tensor) -> list[str]:
        """The text stored in the file of each sample of an image, as JSON.

        It determines the content of the file, so that a resumed request can recognise its own.

        Args:
            index: noise index of the image.
            lr: the input, ``uint8 [D, h, w]``.
        """
        shared = {
            "model": self.model,
            "seed": self.seed,
            "index": index,
            "temperature": self.temperature,
            "input": [*lr.shape, zlib.crc32(lr.numpy().tobytes())],
        }
        samples = 0 if self.sheet_only else self.samples
        return [json.dumps(shared | {"sample": s}) for s in range(samples)]


def find_sources(request: SampleFilesRequest, config: PRSRConfig) -> list[Source]:
    """The images of a request, in order.

    Raises:
        FileNotFoundError: a path does not exist, or a folder contains no image.
        ValueError: an array file does not fit the model or is empty, or the model's images have a
            number of channels that no image file can have.
    """
    pillow_mode(config)  # raises ValueError for the number of channels
    sources: list[Source] = []
    for path in request.images:
        if path.suffix == ".npy" and path.is_file():
            array = read_array(path, config, any_size=request.low_resolution)
            sources += [Source(path, array, index) for index in range(len(array))]
        else:
            excluded = None if request.sheet_only else request.out
            sources += map(Source, find_images([path], excluded))
    return sources


def output_paths(sources: Sequence[Source], request: SampleFilesRequest) -> list[list[Path]]:
    """The files of the samples of each image; a number is added to a name that occurs twice."""
    if request.sheet_only:
        return [[] for _ in sources]
    ends = [""] if request.samples == 1 else [f"_{s + 1}" for s in range(request.samples)]
    taken, outputs = {SHEET_NAME}, []
    for source in sources:
        for number in count(1):
            stem = source.stem if number == 1 else f"{source.stem}~{number}"
            names = [f"{stem}{end}.png" for end in ends]
            if taken.isdisjoint(names):
                break
        taken.update(names)
        outputs.append([request.out / name for name in names])
    return outputs


def prepare_outputs(
    sources: Sequence[Source], outputs: Sequence[Sequence[Path]], request: SampleFilesRequest
) -> None:
    """Create the output folder, and check that every file can be written.

    Raises:
        FileExistsError: an output would replace a file that prsr did not write.
        OSError: a folder does not exist or cannot be written to.
        ValueError: an output would replace an input.
    """
    paths = [request.sheet, *(path for group in outputs for path in group)]
    resolved = {path.resolve() for path in paths}
    for path in {source.path for source in sources}:
        if path.resolve() in resolved:
            raise ValueError(f"{path} is an input and would be replaced: choose another out")
    if not request.sheet_only:
        request.out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        check_writable(path, overwrite=request.overwrite)
