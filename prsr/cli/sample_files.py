"""Image files to image files: what ``prsr sample`` does.

Each file says what it was drawn from, so that a request that was cut short leaves alone what it
has drawn itself, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, groupby
from operator import eq
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress
from torch import Tensor, nn

from prsr.config import PRSRConfig
from prsr.data.contact_sheet import sheet_size
from prsr.data.dataset import read_array
from prsr.data.find_files import find_images
from prsr.data.image_files import SUFFIXES, check_size, check_writable, provenance_of, save_image
from prsr.data.images import (
    Pixels,
    high_resolution,
    pillow_mode,
    read_image,
    reduce,
    to_array,
    to_pil,
)
from prsr.sampling.method import Method
from prsr.sampling.sample_sheet import SheetRow, sample_sheet
from prsr.sampling.sampler import Sampler
from prsr.sampling.slices import conditioning_bytes
from prsr.utils import distributed
from prsr.utils.argument_checks import check_fits, check_integer, check_temperature
from prsr.utils.files import remove_unfinished

Pair = tuple[Tensor, Tensor | None]
"""The low-resolution image ``uint8 [D, h, w]``, and the truth where there is one."""

SHEET_NAME = "contact-sheet.png"
SHEET_ROWS = 24
ABOUT_SHEET = "contact sheet"
CHUNK = 64  # draws at a time: what an interruption can lose


@dataclass(frozen=True, eq=False)
class Source:
    """An image to enlarge: a file, or one of those in an array file.

    Attributes:
        path: of the file.
        array: what is in it, ``uint8 [N, D, H, W]``, if it is an array file.
        index: which one it is of these.
    """

    path: Path
    array: Pixels | None = None
    index: int = 0

    @property
    def stem(self) -> str:
        """How the names of its enlargements begin."""
        if self.array is None:
            return self.path.stem
        return f"{self.path.stem}-{self.index:0{len(str(len(self.array) - 1))}}"

    def pair(self, config: PRSRConfig, low_resolution: bool) -> Pair:
        """The image as the model takes it, and the truth where it was reduced for that."""
        if self.array is None:
            image = read_image(self.path, config)
            hr = to_array(image, config) if low_resolution else high_resolution(image, config)
        else:
            hr = np.array(self.array[self.index])
        if low_resolution:
            return torch.from_numpy(hr), None
        return torch.from_numpy(reduce(hr[None], config)[0]), torch.from_numpy(hr)


@dataclass(frozen=True)
class Upscaling:
    """A request of files.

    Attributes:
        images: files, folders of files, or ``.npy`` array files.
        out: a folder for single images and a contact sheet, or an image file for the sheet.
        samples: to draw of each image.
        temperature: of the draws.
        seed: of the noise; image i, in order of name, draws with the noise of index i.
        low_resolution: take the images as they are instead of reducing them first.
        model: tells the model that draws from others, such as by :func:`fingerprint`.
        resume: leave alone what this request has drawn already.
        overwrite: replace files that prsr has not written, too.
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
        check_temperature(self.temperature, 1)
        check_integer(self.seed, "seed", 0, 2**64)
        suffix = self.out.suffix.lower()
        if suffix in Image.registered_extensions() and suffix not in SUFFIXES:
            kinds = ", ".join(sorted(SUFFIXES))
            raise ValueError(f"out must be a folder, or an image file of {kinds}, got {self.out}")

    @property
    def sheet(self) -> Path:
        """Where the contact sheet goes."""
        return self.out if self.only_sheet else self.out / SHEET_NAME

    def said_of(self, index: int, low: Tensor) -> list[str]:
        """What the files of image ``index`` say of themselves, each other samples of it."""
        about = {
            "model": self.model,
            "seed": self.seed,
            "index": index,
            "temperature": self.temperature,
            "input": [*low.shape, zlib.crc32(low.numpy().tobytes())],
        }
        samples = 0 if self.only_sheet else self.samples
        return [json.dumps(about | {"sample": s}) for s in range(samples)]

    @property
    def only_sheet(self) -> bool:
        """Whether ``out`` names an image file rather than a folder."""
        return self.out.suffix.lower() in SUFFIXES and not self.out.is_dir()


@dataclass(frozen=True)
class Upscaled:
    """What came of a request.

    Attributes:
        written: what a user would look at first: the contact sheet and, if there is one, the
            folder.
        unreadable: path and reason for each image that could not be read, and so was left out.
    """

    written: list[Path]
    unreadable: list[tuple[Path, str]]


def upscale(sampler: Method, request: Upscaling) -> Upscaled:
    """Draw the images and write them; each file appears whole, as soon as it is drawn.

    One that cannot be read is left out; the others are what they would be beside a good one.
    Processes that have joined (:mod:`prsr.utils.distributed`) draw a part of the images each. An
    image is the same whoever draws it. The folder must be one that all of them see.

    Raises:
        FileExistsError: an output would replace a file that prsr has not written.
        FileNotFoundError: an image is missing, a folder is empty, or there is no place to write.
        ValueError: no file is an image, an output would replace an input, a sheet is too large
            for its format, or several processes are to write a sheet alone.
    """
    if request.only_sheet and distributed.count() > 1:
        raise ValueError(f"out must be a folder where several processes draw, got {request.out}")
    config = sampler.config
    found = find_sources(request, config)
    sources = found[:SHEET_ROWS] if request.only_sheet else found
    share = distributed.share(len(sources))
    pairs, reasons = read_pairs(sampler, sources, share, request.low_resolution)
    bad = {i: why for part in distributed.gather(reasons) for i, why in part.items()}
    if len(bad) == len(sources):
        raise ValueError(bad[0])
    rows = [i for i in range(min(SHEET_ROWS, len(sources))) if i not in bad]
    size = sheet_of(pairs, len(rows), request.samples)
    check_size(request.sheet, *size)
    names = output_names(sources, request)
    said = {i: request.said_of(i, low) for i, (low, _) in pairs.items()}
    left = {i: pairs[i] for i in pairs if not (request.resume and done(names[i], said[i]))}
    prepare_outputs(sources, names, request)
    if request.resume and not request.only_sheet and distributed.rank() == 0:
        remove_unfinished(request.out)
    distributed.barrier()  # for nothing is drawn before all images have been read

    shown: dict[int, Tensor] = {}
    with Progress(transient=True, disable=distributed.rank() > 0) as progress:
        if len(found) > SHEET_ROWS and distributed.rank() == 0:
            progress.console.print(f"the sheet shows the first {SHEET_ROWS} of {len(found)} images")
        task = progress.add_task("images", total=len(left))
        for part in chunks(left, max(1, CHUNK // request.samples)):
            drawn = sampler.sample(
                torch.stack([pairs[i][0] for i in part]),
                request.temperature,
                seed=request.seed,
                num_samples=request.samples,
                first_index=part.start,
                progress=progress,
            )
            for i, samples in zip(part, drawn, strict=True):
                for output, sample, about in zip(names[i], samples.numpy(), said[i], strict=False):
                    if not (request.resume and provenance_of(output) == about):
                        save_image(to_pil(sample, config), output, about)
                if i < SHEET_ROWS:
                    shown[i] = samples
            progress.advance(task, len(part))
    distributed.barrier()  # for the sheet shows images of others
    if distributed.rank() == 0:
        sheet_rows: list[SheetRow] = []
        for i in rows:
            low, truth = pairs.get(i) or sources[i].pair(config, request.low_resolution)
            samples = shown[i] if i in shown else read_drawn(names[i], config)
            sheet_rows.append((low, samples, truth))
        save_image(sample_sheet(sheet_rows, config), request.sheet, ABOUT_SHEET)
    written = [request.sheet] if request.only_sheet else [request.out, request.sheet]
    return Upscaled(written, [(sources[i].path, bad[i]) for i in sorted(bad)])


def read_pairs(
    sampler: Method, sources: list[Source], share: range, low_resolution: bool
) -> tuple[dict[int, Pair], dict[int, str]]:
    """The pairs of a share of the sources, and why the others in it cannot be drawn from."""
    config = sampler.config
    pairs: dict[int, Pair] = {}
    bad: dict[int, str] = {}
    for i in share:
        try:
            pair = sources[i].pair(config, low_resolution)
            if isinstance(sampler, Sampler):
                height, width = (config.scale * size for size in pair[0].shape[1:])
                size = conditioning_bytes(config, height, width)
                check_fits(size, f"{sources[i].path}: conditioning logits", sampler.device)
        except (OSError, ValueError) as error:
            bad[i] = str(error)
        else:
            pairs[i] = pair
    return pairs, bad


def sheet_of(pairs: dict[int, Pair], rows: int, samples: int) -> tuple[int, int]:
    """Width and height of the contact sheet, as far as these pairs tell."""
    shown = [pair for i, pair in pairs.items() if i < SHEET_ROWS]
    proportions = max((low.shape[1] / low.shape[2] for low, _ in shown), default=1.0)
    return sheet_size(rows, 3 + samples, proportions)


def done(outputs: list[Path], said: list[str]) -> bool:
    """Whether an image's files are there and say so; none of them is ever half-written."""
    return bool(outputs) and all(map(eq, map(provenance_of, outputs), said))


def fingerprint(model: nn.Module) -> str:
    """Tells a model from one of other weights, by a checksum over all of them."""
    checksum = hashlib.sha256()
    for name, value in model.state_dict().items():
        checksum.update(name.encode())
        checksum.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return checksum.hexdigest()[:16]


def read_drawn(outputs: list[Path], config: PRSRConfig) -> Tensor:
    """The samples of an image as they were drawn, ``uint8 [S, D, H, W]``, from their files."""
    images = [to_array(read_image(output, config), config) for output in outputs]
    return torch.from_numpy(np.stack(images))


def find_sources(request: Upscaling, config: PRSRConfig) -> list[Source]:
    """The images of a request, in order.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds no image.
        ValueError: an array file does not fit the model, or is empty.
    """
    pillow_mode(config)  # raises where the model's images are none that a file can hold
    found: list[Source] = []
    for path in request.images:
        if path.suffix == ".npy" and path.is_file():
            array = read_array(path, config, any_size=request.low_resolution)
            found += [Source(path, array, index) for index in range(len(array))]
        else:
            outside = None if request.only_sheet else request.out
            found += map(Source, find_images([path], outside))
    return found


def output_names(sources: list[Source], request: Upscaling) -> list[list[Path]]:
    """The files to write for each image; a name that is taken already gets a number."""
    if request.only_sheet:
        return [[] for _ in sources]
    ends = [""] if request.samples == 1 else [f"_{s + 1}" for s in range(request.samples)]
    taken, names = {SHEET_NAME}, []
    for source in sources:
        for number in count(1):
            stem = source.stem if number == 1 else f"{source.stem}~{number}"
            group = [f"{stem}{end}.png" for end in ends]
            if taken.isdisjoint(group):
                break
        taken.update(group)
        names.append([request.out / name for name in group])
    return names


def prepare_outputs(sources: list[Source], names: list[list[Path]], request: Upscaling) -> None:
    """Make the folder; refuse to write over what is read, or where nothing can be written.

    Raises:
        FileExistsError: an output would replace a file that prsr has not written.
        OSError: the folder of a sheet does not exist, or a place cannot be written to.
        ValueError: an output would replace an input.
    """
    outputs = {path.resolve() for group in names for path in group} | {request.sheet.resolve()}
    for path in {source.path for source in sources}:
        if path.resolve() in outputs:
            raise ValueError(f"{path} would be replaced by its own enlargement: choose another out")
    if not request.only_sheet:
        request.out.mkdir(parents=True, exist_ok=True)
    for path in [request.sheet, *(path for group in names for path in group)]:
        check_writable(path, overwrite=request.overwrite)


def chunks(pairs: dict[int, Pair], length: int) -> list[range]:
    """Neighbours of one size in ``pairs``, no more than ``length`` of them at a time."""
    ranges = []
    neighbours = groupby(enumerate(pairs), key=lambda at: (at[1] - at[0], pairs[at[1]][0].shape))
    for _, group in neighbours:
        indices = [index for _, index in group]
        start, stop = indices[0], indices[-1] + 1
        ranges += [range(a, min(a + length, stop)) for a in range(start, stop, length)]
    return ranges
