"""Random crops and flips of training images, as a function of (seed, step, index).

An image is cropped to 84–95% of its side, resized to the model's high resolution and mirrored with
probability ½. Images that have the model's size are only mirrored. There is no state between steps,
so that a resumed run, or several processes, train on the same images as one uninterrupted process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.data.dataset import EndlessBatches, SuperResolutionImages
from prsr.sampling.noise import philox, uniform
from prsr.training.bicubic import low_resolution, resize

MIN_CROP, MAX_CROP = 0.84, 0.95
"""Range of a crop's side, relative to the largest crop with the model's proportions."""
MAX_WORD = 0xFFFFFFFF
"""The largest counter word; as the last word, it separates these numbers from sampling noise."""


def augmented_batches(
    images: SuperResolutionImages,
    order: EndlessBatches,
    seed: int,
    resident: torch.device | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """An endless sequence of training batches, one per step from ``order.start`` on.

    Args:
        images: that :func:`check_size` accepts.
        order: the images of each step.
        seed: of the crops and flips.
        resident: a device that stores all images and computes the same pairs; None reads and crops
            each batch on the CPU.

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
    """Check that images have the model's size, or are so large that no crop is enlarged.

    Args:
        images: to train on.
        validated: whether there are separate validation images, which have the model's size.

    Raises:
        ValueError: they have another size, or larger images would have to be used for validation.
    """
    size = images.config.high_size
    found = images.pixels.shape[2:]
    if found == size:
        return
    if not validated:
        raise ValueError(
            f"--validation must be given where --augment crops images of {found[0]}×{found[1]}: "
            f"validation needs images of {size[0]}×{size[1]}"
        )
    least = [math.ceil(side / MIN_CROP) for side in size]
    if any(side < small for side, small in zip(found, least, strict=True)):
        raise ValueError(
            f"images for --augment must be of the model's size, {size[0]}×{size[1]}, or at least "
            f"{least[0]}×{least[1]} to be cropped, they are {found[0]}×{found[1]}"
        )


def augment(pixels: Tensor, indices: Tensor, step: int, seed: int, config: PRSRConfig) -> Tensor:
    """Crop, resize and mirror images at random; the result is the same on every device.

    Args:
        pixels: ``uint8 [n, D, H, W]``, values below K.
        indices: of these images in their set, ``int64 [n]``, on the same device.
        step: of the training, from 0.
        seed: below 2⁶⁴.
        config: of the model, for the size of the results.

    Returns:
        ``uint8 [n, D, s·h, s·w]``, on the device of ``pixels``, values below K.
    """
    words = random_words(indices, step, seed)
    size = config.high_size
    if pixels.shape[2:] != size:
        boxes = crop_boxes(words, (pixels.shape[2], pixels.shape[3]), size)
        pixels = resize(pixels, size, boxes)
        pixels = pixels.clamp(max=config.levels - 1)  # bicubic interpolation overshoots at edges
    return torch.where(is_mirrored(words)[:, None, None, None], pixels.flip(3), pixels)


def random_words(indices: Tensor, step: int, seed: int) -> Tensor:
    """Four random 32-bit words per image: indices ``int64 [n]`` → ``int64 [n, 4]``."""
    image = indices & MAX_WORD
    constants = step & MAX_WORD, step >> 32, MAX_WORD
    low, high, last = (torch.full_like(image, word) for word in constants)
    return philox((image, low, high, last), seed)


def crop_boxes(words: Tensor, source: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Random boxes with the proportions of ``size`` in images of size ``source``.

    Args:
        words: of :func:`random_words`, ``int64 [n, 4]``.
        source: height and width of the images in pixels.
        size: height and width of the results in pixels.

    Returns:
        Left, top, right and bottom in pixels, ``float32 [n, 4]``.
    """
    share, x, y = uniform(words[:, :3]).double().unbind(1)
    share = MIN_CROP + (MAX_CROP - MIN_CROP) * share
    largest = min(source[0] / size[0], source[1] / size[1])
    height, width = (share * (largest * side) for side in size)
    left, top = x * (source[1] - width), y * (source[0] - height)
    return torch.stack((left, top, left + width, top + height), 1).float()


def is_mirrored(words: Tensor) -> Tensor:
    """Whether each image is mirrored: words ``int64 [n, 4]`` → ``bool [n]``."""
    return words[:, 3] < 1 << 31
