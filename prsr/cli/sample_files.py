"""Sampling from image files to image files: the work of ``prsr sample``.

Each file contains its provenance, so that a request that was interrupted can be resumed: it keeps
the files that it has written itself, and no others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn

from prsr.cli.options import print_line
from prsr.cli.sample_paths import (
    Pair,
    SampleFilesRequest,
    Source,
    find_sources,
    output_paths,
    prepare_outputs,
)
from prsr.config import PRSRConfig
from prsr.data.contact_sheet import sheet_size
from prsr.data.image_arrays import read_image, to_array, to_pil
from prsr.data.write_images import check_size, provenance_of, save_image
from prsr.sampling.method import Method
from prsr.sampling.sample_sheet import SheetRow, sample_sheet
from prsr.utils import distributed
from prsr.utils.files import remove_unfinished

SHEET_ROWS = 24
"""Largest number of images on a contact sheet."""

SHEET_PROVENANCE = "contact sheet"

CHUNK = 64
"""Samples computed before their files are written: the most that an interruption can lose."""


@dataclass(frozen=True)
class SampleFilesResult:
    """The result of :func:`sample_files`.

    Attributes:
        written: the output folder, unless only a sheet was requested, and the contact sheet.
        unreadable: path and reason of each image that was skipped because it cannot be read.
    """

    written: list[Path]
    unreadable: list[tuple[Path, str]]


def sample_files(sampler: Method, request: SampleFilesRequest) -> SampleFilesResult:
    """Sample the images of a request and write the files, each atomically and as soon as possible.

    An image that cannot be read is skipped; it changes no other image. Processes that have joined
    (:mod:`prsr.utils.distributed`) sample a share of the images each, and write the files that one
    process would write. They must see the same output folder.

    Raises:
        FileExistsError: an output would replace a file that prsr did not write.
        FileNotFoundError: an image is missing, or a folder contains none.
        OSError: an output cannot be written.
        ValueError: no image can be read, an output would replace an input, the sheet is too large
            for its format, or a sheet alone was requested of several processes.
    """
    if request.sheet_only and distributed.count() > 1:
        raise ValueError(f"out must be a folder for several processes, got {request.out}")
    config = sampler.config
    found = find_sources(request, config)
    sources = found[:SHEET_ROWS] if request.sheet_only else found
    share = distributed.share(len(sources))
    pairs, own_unreadable = read_pairs(sampler, sources, share, request.low_resolution)
    unreadable = {
        i: reason for part in distributed.gather(own_unreadable) for i, reason in part.items()
    }
    if len(unreadable) == len(sources):
        raise ValueError(unreadable[0])
    rows = [i for i in range(min(SHEET_ROWS, len(sources))) if i not in unreadable]
    check_size(request.sheet, *estimated_sheet_size(pairs, len(rows), request.samples))
    outputs = output_paths(sources, request)
    prepare_outputs(sources, outputs, request)
    if request.resume and not request.sheet_only and distributed.rank() == 0:
        remove_unfinished(request.out)
    distributed.barrier()  # until every process has read and checked its share
    if len(found) > SHEET_ROWS and distributed.rank() == 0:
        print_line(f"the sheet shows the first {SHEET_ROWS} of {len(found)} images")
    shown = write_samples(sampler, request, pairs, outputs)
    distributed.barrier()  # until the files of all rows of the sheet exist
    if distributed.rank() == 0:
        sheet_rows: list[SheetRow] = []
        for i in rows:
            lr, truth = pairs.get(i) or sources[i].pair(config, request.low_resolution)
            samples = shown[i] if i in shown else read_samples(outputs[i], config)
            sheet_rows.append((lr, samples, truth))
        save_image(sample_sheet(sheet_rows, config), request.sheet, SHEET_PROVENANCE)
    written = [request.sheet] if request.sheet_only else [request.out, request.sheet]
    return SampleFilesResult(
        written, [(sources[i].path, unreadable[i]) for i in sorted(unreadable)]
    )


def read_pairs(
    sampler: Method, sources: Sequence[Source], share: range, low_resolution: bool
) -> tuple[dict[int, Pair], dict[int, str]]:
    """The pairs of a share of the sources, and the reasons why the others of it are unusable.

    Both are by index. An image is also unusable if its conditioning exceeds the memory.
    """
    config = sampler.config
    pairs: dict[int, Pair] = {}
    unreadable: dict[int, str] = {}
    for i in share:
        try:
            pair = sources[i].pair(config, low_resolution)
            height, width = (config.scale * size for size in pair[0].shape[1:])
            check_output_size(sampler, height, width, sources[i].path)
        except (OSError, ValueError) as error:
            unreadable[i] = str(error)
        else:
            pairs[i] = pair
    return pairs, unreadable


def check_output_size(sampler: Method, height: int, width: int, path: Path) -> None:
    """Raise ValueError with the path if the sampler cannot make images of H × W pixels."""
    try:
        sampler.check_size(height, width)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_samples(
    sampler: Method,
    request: SampleFilesRequest,
    pairs: Mapping[int, Pair],
    outputs: Sequence[Sequence[Path]],
) -> dict[int, Tensor]:
    """Sample the inputs of ``pairs`` and write the files; a resumed request keeps what it has.

    Args:
        sampler: to sample with.
        request: what to sample, and how.
        pairs: input and truth by index.
        outputs: the files of each image; none if only a sheet was requested.

    Returns:
        The samples of images on the contact sheet, ``uint8 [S, D, H, W]`` by index, unless their
        files were kept.
    """
    provenance = {i: request.provenance(i, lr) for i, (lr, _) in pairs.items()}
    remaining = {
        i: lr
        for i, (lr, _) in pairs.items()
        if not (request.resume and are_written(outputs[i], provenance[i]))
    }
    shown: dict[int, Tensor] = {}
    with Progress(transient=True, disable=distributed.rank() > 0) as progress:
        task = progress.add_task("images", total=len(remaining))
        for part in chunks(remaining, max(1, CHUNK // request.samples)):
            sampled = sampler.sample(
                torch.stack([remaining[i] for i in part]),
                request.temperature,
                seed=request.seed,
                num_samples=request.samples,
                first_index=part.start,
                progress=progress,
            )
            for i, samples in zip(part, sampled, strict=True):
                for s, (output, text) in enumerate(zip(outputs[i], provenance[i], strict=True)):
                    if not (request.resume and provenance_of(output) == text):
                        save_image(to_pil(samples[s].numpy(), sampler.config), output, text)
                if i < SHEET_ROWS:
                    shown[i] = samples
            progress.advance(task, len(part))
    return shown


def are_written(outputs: Sequence[Path], provenance: Sequence[str]) -> bool:
    """Whether the files of an image exist with this provenance; files are always complete."""
    return bool(outputs) and [provenance_of(output) for output in outputs] == list(provenance)


def chunks(inputs: Mapping[int, Tensor], length: int) -> list[range]:
    """Ranges of at most ``length`` consecutive indices of ``inputs`` that have equal shapes."""
    ranges = []
    # Consecutive indices have the same difference from their position.
    runs = groupby(enumerate(inputs), key=lambda item: (item[1] - item[0], inputs[item[1]].shape))
    for _, run in runs:
        indices = [index for _, index in run]
        start, stop = indices[0], indices[-1] + 1
        ranges += [range(a, min(a + length, stop)) for a in range(start, stop, length)]
    return ranges


def read_samples(outputs: Sequence[Path], config: PRSRConfig) -> Tensor:
    """The samples of an image from their files, ``uint8 [S, D, H, W]``."""
    images = [to_array(read_image(output, config), config) for output in outputs]
    return torch.from_numpy(np.stack(images))


def estimated_sheet_size(pairs: Mapping[int, Pair], rows: int, samples: int) -> tuple[int, int]:
    """Width and height of the contact sheet in pixels, from the proportions of these pairs.

    It assumes a column of truths. The images of other processes are not taken into account.
    """
    inputs = [lr for i, (lr, _) in pairs.items() if i < SHEET_ROWS]
    proportions = max((lr.shape[1] / lr.shape[2] for lr in inputs), default=1.0)
    return sheet_size(rows, 3 + samples, proportions)


def fingerprint(model: nn.Module) -> str:
    """A checksum of the names and values of all weights: 16 hexadecimal digits of SHA-256."""
    checksum = hashlib.sha256()
    for name, value in model.state_dict().items():
        checksum.update(name.encode())
        checksum.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return checksum.hexdigest()[:16]
