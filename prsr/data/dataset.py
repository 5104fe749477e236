"""Training data: pairs of low- and high-resolution images from a folder or an array file.

The order of operations is the paper's: centre crop, bicubic resize to the high resolution, and
bicubic resize of *that* to the low one.
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
from prsr.data.image_arrays import Pixels, high_resolution, read_image, reduce
from prsr.utils.argument_checks import check_integer
from prsr.utils.files import suppress_unsupported


def map_array(path: str | Path) -> NDArray[Any]:
    """Map an array file of any shape and dtype into memory; pickles are rejected.

    Raises:
        OSError: the file system cannot read it.
        ValueError: it is not an array file.
    """
    array: Any = None
    try:
        with suppress_unsupported():
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array is None:  # the file system does not support memory maps
            array = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python and raises errors of many types
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, f"{path} cannot be read: {error.strerror}") from error
        raise ValueError(f"{path} is not a readable .npy array file") from error
    if not isinstance(array, np.ndarray):  # an archive of several arrays
        raise ValueError(f"{path} is not a readable .npy array file")
    return array


def read_array(path: str | Path, config: PRSRConfig, *, any_size: bool = False) -> Pixels:
    """Map an array file of images, ``uint8 [N, D, s·h, s·w]`` in NumPy's ``.npy`` format.

    Args:
        path: of the file.
        config: of the model, for D, s, h, w and K.
        any_size: accept images of any size.

    Raises:
        OSError: the file system cannot read it.
        ValueError: it is not an array file, or its images do not fit the configuration.
    """
    try:
        pixels = map_array(path)
    except ValueError as error:
        raise ValueError(f"{path} is neither a folder nor a readable .npy array file") from error
    size = list(config.high_size)
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
    # With 256 levels, every uint8 value is valid.
    if config.levels < 256 and pixels.max() >= config.levels:
        raise ValueError(f"{path} must hold values below {config.levels}, it has {pixels.max()}")
    return pixels


def read_folder(path: str | Path, config: PRSRConfig, *, progress: bool = False) -> Pixels:
    """Read every image in a folder and its subfolders, sorted by name: ``uint8 [N, D, s·h, s·w]``.

    Raises:
        FileNotFoundError: the folder does not exist or contains no image.
        ValueError: a file cannot be read as an image.
    """
    files = find_images([path])
    tracked = track(files, "reading images", disable=not progress, transient=True)
    try:
        return np.stack([high_resolution(read_image(file, config), config) for file in tracked])
    except ValueError as error:
        raise ValueError(
            f"{error}; `prsr data folder` makes an array file without the unreadable ones"
        ) from error


class Selection:
    """Images selected from an array or memory map; they are read when they are indexed.

    Args:
        pixels: ``uint8 [N, D, H, W]``.
        chosen: indices of the selected images, ``int64 [n]``.
    """

    def __init__(self, pixels: Pixels | Selection, chosen: NDArray[np.int64]) -> None:
        self.pixels, self.chosen = pixels, chosen
        self.shape: tuple[int, ...] = (len(chosen), *pixels.shape[1:])
        self.dtype: np.dtype[Any] = pixels.dtype
        self.ndim: int = pixels.ndim

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: Any) -> Pixels:
        return np.asarray(self.pixels[self.chosen[index]])


class SuperResolutionImages(Dataset[tuple[Tensor, Tensor]]):
    """Pairs (lr ``uint8 [D, h, w]``, hr ``uint8 [D, s·h, s·w]``) for training and evaluation.

    Args:
        pixels: high-resolution images, ``uint8 [N, D, s·h, s·w]``; may be a memory map or a
            selection of one.
        config: of the model, for D, s, h, w and K.
        any_size: accept images of any size, as :mod:`prsr.training.augmentation` does.

    Raises:
        TypeError: the images are not ``uint8``.
        ValueError: there is no image, the images have another shape, or a value is not below K.
    """

    def __init__(
        self, pixels: Pixels | Selection, config: PRSRConfig, *, any_size: bool = False
    ) -> None:
        if getattr(pixels, "dtype", None) != np.uint8:
            given = getattr(pixels, "dtype", type(pixels).__name__)
            raise TypeError(f"pixels must be an array of uint8, got {given}")
        size = pixels.shape[2:] if any_size else config.high_size
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (config.channels, *size):
            expected = ["N", config.channels, *(("H", "W") if any_size else size)]
            raise ValueError(
                f"pixels must be [{', '.join(map(str, expected))}], got {list(pixels.shape)}"
            )
        if 0 in pixels.shape:
            raise ValueError("pixels must hold at least one image, they hold none")
        # Checked here, because the loss does not read values on a GPU. Those of a selection were
        # checked before it was made. With 256 levels, every uint8 value is valid.
        if config.levels < 256 and not isinstance(pixels, Selection):
            largest = int(pixels.max())
            if largest >= config.levels:
                raise ValueError(
                    f"pixels must hold values below {config.levels} (the model's levels), "
                    f"got {largest}"
                )
        self.pixels = pixels
        self.config = config
        self.any_size = any_size

    @classmethod
    def open(
        cls,
        path: str | Path,
        config: PRSRConfig,
        *,
        any_size: bool = False,
        progress: bool = False,
    ) -> SuperResolutionImages:
        """Open the images of a folder or of a ``.npy`` array file.

        Args:
            path: of the folder or file.
            config: of the model.
            any_size: accept images of any size in an array file, as
                :mod:`prsr.training.augmentation` does.
            progress: show a progress bar.

        Raises:
            FileNotFoundError: ``path`` does not exist or contains no image.
            ValueError: a file cannot be read, or does not fit the configuration.
        """
        if Path(path).is_dir():
            return cls(read_folder(path, config, progress=progress), config)
        if not Path(path).is_file():
            raise FileNotFoundError(f"no such folder or array file: {path}")
        return cls(read_array(path, config, any_size=any_size), config, any_size=any_size)

    def split(self, held_out: int, seed: int = 0) -> tuple[SuperResolutionImages, ...]:
        """Split into two disjoint sets; the second has ``held_out`` images, chosen by ``seed``.

        Raises:
            ValueError: one of the two would be empty.
        """
        if len(self) < 2:
            raise ValueError("there must be at least two images, one of them to hold out")
        if not 0 < held_out < len(self):
            raise ValueError(f"held_out must be from 1 to {len(self) - 1}, got {held_out}")
        order = np.random.default_rng(seed).permutation(len(self))
        parts = np.sort(order[held_out:]), np.sort(order[:held_out])
        return tuple(self.of(Selection(self.pixels, part)) for part in parts)

    def first(self, count: int | None) -> SuperResolutionImages:
        """The first ``count`` images; None means all.

        Raises:
            TypeError: ``count`` is not an integer.
            ValueError: it is less than 1.
        """
        if count is None:
            return self
        return self.of(self.pixels[: check_integer(count, "count", 1, 2**63)])

    def of(self, pixels: Pixels | Selection) -> SuperResolutionImages:
        """A set of other images with the configuration of this one."""
        return type(self)(pixels, self.config, any_size=self.any_size)

    def __len__(self) -> int:
        return len(self.pixels)

    def fingerprint(self) -> str:
        """Identifies the set: the number of images, and a checksum of up to 64 of them."""
        some = np.linspace(0, len(self) - 1, min(len(self), 64)).astype(int)
        checksum = zlib.crc32(np.ascontiguousarray(self.pixels[some]).tobytes())
        return f"{len(self)} images, checksum {checksum:08x}"

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        lr, hr = self.batch([index])
        return lr[0], hr[0]

    def batch(self, indices: Sequence[int] | slice) -> tuple[Tensor, Tensor]:
        """A batch of pairs: lr ``uint8 [n, D, h, w]``, hr ``uint8 [n, D, s·h, s·w]``."""
        hr = np.array(self.pixels[indices])
        return torch.from_numpy(self.inputs(hr)), torch.from_numpy(hr)

    def inputs(self, hr: Pixels) -> Pixels:
        """The model's inputs for images, ``uint8 [n, D, s·h, s·w]`` → ``[n, D, h, w]``."""
        return reduce(hr, self.config)


class EndlessBatches(Sampler[list[int]]):
    """An endless sequence of shuffled batches whose order depends only on ``seed``.

    The order of epoch e is a permutation determined by ``(seed, e)``; batches may span two epochs.
    Batch t can thus be computed without the earlier ones, which makes resuming exact.

    Args:
        images: number of images.
        batch_size: images per batch over all processes.
        seed: of the order.
        start: index of the first batch.
        rank: of this process among ``world_size``; it gets every ``world_size``-th image.
        world_size: number of processes that share each batch.
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
