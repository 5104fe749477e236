"""Training data: images in a folder or in an array file, as pairs of low and high resolution.

The order is the paper's: centre crop, bicubic to the high resolution, and bicubic from *that* to
the low one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from prsr.config import PRSRConfig
from prsr.data.find_files import find_images
from prsr.data.images import Pixels, high_resolution, read_image, reduce
from prsr.utils.files import suppress_unsupported


def high_size(config: PRSRConfig) -> tuple[int, int]:
    """Height and width of the high resolution, in pixels."""
    return config.scale * config.low_height, config.scale * config.low_width


def map_array(path: str | Path) -> NDArray[Any]:
    """An array file of any shape and dtype, mapped, not loaded; pickles are not read.

    Raises:
        OSError: the file system cannot read it.
        ValueError: it is no such file.
    """
    array: Any = None
    try:
        with suppress_unsupported():
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array is None:  # the file system has no memory maps
            array = np.load(path, allow_pickle=False)
    except Exception as error:  # of many kinds: NumPy reads the header as Python
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, f"{path} cannot be read: {error.strerror}") from error
        raise ValueError(f"{path} is not a readable .npy array file") from error
    if not isinstance(array, np.ndarray):  # an archive of several
        raise ValueError(f"{path} is not a readable .npy array file")
    return array


def read_array(path: str | Path, config: PRSRConfig, *, any_size: bool = False) -> Pixels:
    """An array file: ``uint8 [N, D, s·h, s·w]`` in NumPy's ``.npy`` format, mapped, not loaded.

    With ``any_size``, the images may be of any size.

    Raises:
        OSError: the file system cannot read it.
        ValueError: it is no such file, or its images do not fit the configuration.
    """
    try:
        pixels = map_array(path)
    except ValueError as error:
        raise ValueError(f"{path} is neither a folder nor a readable .npy array file") from error
    size = list(high_size(config))
    shape = list(pixels.shape)
    if len(shape) != 4 or shape[1:] != [config.channels, *(shape[2:] if any_size else size)]:
        expected = ["N", config.channels, *(["h", "w"] if any_size else size)]
        larger = len(shape) == 4 and shape[2] >= size[0] and shape[3] >= size[1]
        hint = " (prsr train --augment crops larger ones)" if larger and not any_size else ""
        raise ValueError(
            f"{path} must hold images [{', '.join(map(str, expected))}], it holds {shape}{hint}"
        )
    if not pixels.size:
        raise ValueError(f"{path} holds no images")
    if pixels.dtype != np.uint8:
        raise ValueError(f"{path} must be uint8, it is {pixels.dtype}")
    # 256 levels are all that uint8 has, so that only smaller models need a look at the pixels.
    if config.levels < 256 and pixels.max() >= config.levels:
        raise ValueError(f"{path} must hold values below {config.levels}, it has {pixels.max()}")
    return pixels


def read_folder(path: str | Path, config: PRSRConfig, *, progress: bool = False) -> Pixels:
    """Every image in a folder and below it, in order of name: ``uint8 [N, D, s·h, s·w]``.

    Raises:
        FileNotFoundError: the folder is missing or holds no image.
        ValueError: a file cannot be read as an image.
    """
    files = find_images([path])
    turns = track(files, "reading images", disable=not progress, transient=True)
    try:
        return np.stack([high_resolution(read_image(file, config), config) for file in turns])
    except ValueError as error:
        raise ValueError(
            f"{error}; `prsr data folder` makes an array file without what cannot be read"
        ) from error


class Selection:
    """Some images of an array, which may be a memory map: none is read before it is asked for.

    Args:
        pixels: ``uint8 [N, D, H, W]``.
        chosen: which of these, ``int64 [n]``.
    """

    def __init__(self, pixels: Pixels | Selection, chosen: NDArray[np.int64]) -> None:
        self.pixels, self.chosen = pixels, chosen
        self.shape: tuple[int, ...] = (len(chosen), *pixels.shape[1:])

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: Any) -> Pixels:
        return np.asarray(self.pixels[self.chosen[index]])


class SuperResolutionImages(Dataset[tuple[Tensor, Tensor]]):
    """Pairs (lr ``uint8 [D, h, w]``, hr ``uint8 [D, s·h, s·w]``) for training and evaluation.

    Args:
        pixels: high-resolution images, ``uint8 [N, D, s·h, s·w]``; a memory map will do, or a
            selection of one.
        config: says what the low resolution is.

    Raises:
        ValueError: there is no image.
    """

    def __init__(self, pixels: Pixels | Selection, config: PRSRConfig) -> None:
        if not len(pixels):
            raise ValueError("pixels must hold an image at least, they hold none")
        self.pixels = pixels
        self.config = config

    @classmethod
    def open(
        cls,
        path: str | Path,
        config: PRSRConfig,
        *,
        any_size: bool = False,
        progress: bool = False,
    ) -> SuperResolutionImages:
        """The images of a folder or of a ``.npy`` array file.

        With ``any_size``, those of an array file may be of any size: see
        :mod:`prsr.training.augmentation`.

        Raises:
            FileNotFoundError: there is nothing at ``path``, or no image in it.
            ValueError: a file cannot be read, or does not fit the configuration.
        """
        if Path(path).is_dir():
            return cls(read_folder(path, config, progress=progress), config)
        if not Path(path).is_file():
            raise FileNotFoundError(f"no such folder or array file: {path}")
        return cls(read_array(path, config, any_size=any_size), config)

    def split(self, held_out: int, seed: int = 0) -> tuple[SuperResolutionImages, ...]:
        """Two disjoint sets, the second of ``held_out`` images chosen by ``seed`` alone.

        Raises:
            ValueError: ``held_out`` would leave one of them empty.
        """
        if len(self) < 2:
            raise ValueError("there must be two images at least, one of them to hold out")
        if not 0 < held_out < len(self):
            raise ValueError(f"held_out must be from 1 to {len(self) - 1}, got {held_out}")
        order = np.random.default_rng(seed).permutation(len(self))
        parts = np.sort(order[held_out:]), np.sort(order[:held_out])
        return tuple(type(self)(Selection(self.pixels, part), self.config) for part in parts)

    def first(self, count: int | None) -> SuperResolutionImages:
        """The first so many of these images; None stands for all."""
        return self if count is None else type(self)(self.pixels[:count], self.config)

    def __len__(self) -> int:
        return len(self.pixels)

    def fingerprint(self) -> str:
        """Tells one set from another: the number of images, and a checksum of some of them."""
        some = np.linspace(0, len(self) - 1, min(len(self), 64)).astype(int)
        checksum = zlib.crc32(np.ascontiguousarray(self.pixels[some]).tobytes())
        return f"{len(self)} images, checksum {checksum:08x}"

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        lr, hr = self.batch([index])
        return lr[0], hr[0]

    def batch(self, indices: Sequence[int] | slice) -> tuple[Tensor, Tensor]:
        """Several pairs at once: lr ``[n, D, h, w]``, hr ``[n, D, s·h, s·w]``."""
        hr = np.array(self.pixels[indices])
        return torch.from_numpy(self.inputs(hr)), torch.from_numpy(hr)

    def inputs(self, hr: Pixels) -> Pixels:
        """What a model sees of images, ``uint8 [n, D, s·h, s·w]`` → ``[n, D, h, w]``."""
        return reduce(hr, self.config)


class EndlessBatches(Sampler[list[int]]):
    """Shuffled batches without end whose order depends on ``seed`` alone.

    Epoch e is the permutation that ``(seed, e)`` gives; batches run on across its end, so that
    batch t can be computed without those before it, which is what makes resuming exact.

    Args:
        images: how many there are.
        batch_size: images of a batch over all processes.
        seed: of the order.
        start: the batch to begin with.
        rank: this process's place among ``world_size``; it gets every ``world_size``-th image.
        world_size: processes that share each batch.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.start, self.rank, self.world_size = start, rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, np.empty(0, np.int64)
        position = self.start * self.batch_size
        while True:
            batch = []
            for place in range(position, position + self.batch_size):
                if place // self.images != epoch:
                    epoch = place // self.images
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.images)
                batch.append(int(order[place % self.images]))
            yield batch[self.rank :: self.world_size]
            position += self.batch_size
