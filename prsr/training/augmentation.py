"""Random crops and flips of training images, each a function of (seed, step, index) alone.

An image is cut to 84–95% of its side, resized to the model's high resolution and mirrored with
probability ½; one of the model's own size is mirrored only. Nothing is kept between steps, so that
a resumed run, or several processes, see the images that one unbroken process would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.data.dataset import EndlessBatches, SuperResolutionImages, high_size
from prsr.sampling.noise import philox, uniform
from prsr.training.resampling import low_resolution, resize

LEAST, MOST = 0.84, 0.95
"""Side of a crop, as a share of the largest that has the model's proportions."""
WORD = 0xFFFFFFFF
"""The largest word of a counter; as the last one, it keeps crops apart from sampling's noise."""


def augmented_batches(
    images: SuperResolutionImages,
    order: EndlessBatches,
    seed: int,
    resident: torch.device | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs for training, without end, one batch a step from ``order.start`` on.

    Args:
        images: of the model's size, or as large as :func:`check_size` accepts.
        order: which images each step takes.
        seed: of the crops and flips.
        resident: a device that keeps all images, and makes the same pairs of them there; with None
            they are read and cropped on the CPU, batch by batch.

    Yields:
        lr ``uint8 [n, D, h, w]``, reduced from hr ``uint8 [n, D, s·h, s·w]``.
    """
    kept = None if resident is None else torch.from_numpy(np.array(images.pixels[:])).to(resident)
    for step, batch in enumerate(order, order.start):
        indices = torch.tensor(batch, device=resident)
        read = torch.from_numpy(np.array(images.pixels[batch])) if kept is None else kept[indices]
        hr = augment(read, indices, step, seed, images.config)
        yield low_resolution(hr, images.config), hr


def check_size(images: SuperResolutionImages, *, validated: bool) -> None:
    """Images are of the model's size, or so large that no crop is enlarged.

    Args:
        images: to train on.
        validated: on other images, which have the model's size; not on some of these.

    Raises:
        ValueError: they are not, or some of the larger ones would have to serve for validation.
    """
    size = high_size(images.config)
    found = images.pixels.shape[2:]
    if found == size:
        return
    if not validated:
        raise ValueError(
            f"--validation must be given where --augment crops images of {found[0]}×{found[1]}: "
            f"they cannot be validated on, which takes {size[0]}×{size[1]}"
        )
    least = [math.ceil(side / LEAST) for side in size]
    if any(side < small for side, small in zip(found, least, strict=True)):
        raise ValueError(
            f"images for --augment must be of the model's size, {size[0]}×{size[1]}, or at least "
            f"{least[0]}×{least[1]} to be cropped, they are {found[0]}×{found[1]}"
        )


def augment(pixels: Tensor, indices: Tensor, step: int, seed: int, config: PRSRConfig) -> Tensor:
    """Images cropped, resized and mirrored at random; the same on every device.

    Args:
        pixels: ``uint8 [n, D, H, W]``, values below K.
        indices: of these images in their set, ``int64 [n]``, on the same device.
        step: of the training, from 0.
        seed: below 2⁶⁴.
        config: says what size the results have.

    Returns:
        ``uint8 [n, D, s·h, s·w]``, on the device of ``pixels``, values below K.
    """
    words = draws(indices, step, seed)
    size = high_size(config)
    if pixels.shape[2:] != size:
        boxes = crops(words, (pixels.shape[2], pixels.shape[3]), size)
        pixels = resize(pixels, size, boxes)
        pixels = pixels.clamp(max=config.levels - 1)  # bicubic overshoots at edges
    return torch.where(flips(words)[:, None, None, None], pixels.flip(3), pixels)


def draws(indices: Tensor, step: int, seed: int) -> Tensor:
    """Four random words for each image at a step: ``int64 [n]`` → ``int64 [n, 4]``."""
    image = indices & WORD
    low, high, last = (torch.full_like(image, word) for word in (step & WORD, step >> 32, WORD))
    return philox((image, low, high, last), seed)


def crops(words: Tensor, source: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Boxes of the proportions of ``size``, anywhere in an image of size ``source``.

    Args:
        words: as :func:`draws` gives them, ``int64 [n, 4]``.
        source: height and width in pixels.
        size: likewise, of the results.

    Returns:
        Left, top, right and bottom in pixels, ``float32 [n, 4]``.
    """
    share, x, y = uniform(words[:, :3]).double().unbind(1)
    share = LEAST + (MOST - LEAST) * share
    largest = min(source[0] / size[0], source[1] / size[1])
    height, width = (share * (largest * side) for side in size)
    left, top = x * (source[1] - width), y * (source[0] - height)
    return torch.stack((left, top, left + width, top + height), 1).float()


def flips(words: Tensor) -> Tensor:
    """Which images are mirrored: ``int64 [n, 4]`` → ``bool [n]``."""
    return words[:, 3] < 1 << 31
