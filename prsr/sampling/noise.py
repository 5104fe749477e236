"""The noise: counter-based uniform random numbers, one for each sub-pixel.

Philox4x32-10 of Salmon et al., *Parallel random numbers: as easy as 1, 2, 3* (SC 2011). The key is
the seed; the counter is (sub-pixel / 4, image low, image high, sample), with the sub-pixels of an
image numbered in the order y, x, colour. The noise depends on nothing else: not on the batch, the
shard, the device or the engine.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prsr.utils.argument_checks import check_integer

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> Tensor:
    """Philox4x32-10 of each counter under one key.

    Args:
        counter: four words below 2³², ``int64`` tensors that broadcast to one shape.
        seed: the key, below 2⁶⁴.

    Returns:
        Four words below 2³² in a new last dimension, ``int64 [..., 4]``.
    """
    a, b, c, d = torch.broadcast_tensors(*counter)
    # Both halves of a round in one tensor: for few images, the number of operations is the cost.
    left, right = torch.stack((a, c)), torch.stack((b, d))
    halves = 2, *(1 for _ in a.shape)
    multipliers = torch.tensor(_MULTIPLIERS, dtype=torch.int64, device=a.device).view(halves)
    words = [
        [((seed & _LOW) + i * _WEYL[0]) & _LOW, ((seed >> 32) + i * _WEYL[1]) & _LOW]
        for i in range(_ROUNDS)
    ]
    keys = torch.tensor(words, dtype=torch.int64, device=a.device).view(_ROUNDS, *halves)
    for key in keys.unbind():
        # A product below 2⁶⁴ overflows int64, but its bits are right: shift and mask recover them.
        product = (left * multipliers).flip(0)
        left, right = ((product >> 32) & _LOW) ^ right ^ key, product & _LOW
    return torch.stack((left[0], right[0], left[1], right[1]), dim=-1)


def uniform(words: Tensor) -> Tensor:
    """Words below 2³² as float32 in (0, 1): (⌊word / 2⁹⌋ + ½) · 2⁻²³, which is exact."""
    return ((words >> 9).float() + 0.5) * 2.0**-23


def image_noise(
    seed: int, images: Tensor, samples: Tensor, height: int, width: int, channels: int
) -> Tensor:
    """Noise of the given images and samples; :func:`noise` is for consecutive images.

    Args:
        seed: below 2⁶⁴.
        images: index of each image, ``int64 [n]``, from 0.
        samples: number of the sample of that image, ``int64 [n]``, from 0, below 2³².
        height: of the images in pixels.
        width: of the images in pixels.
        channels: D.

    Returns:
        ``float32 [n, height, width, channels]`` in [0, 1), on the device of ``images``.
    """
    size = height * width * channels
    blocks = torch.arange((size + 3) // 4, device=images.device)
    counter = (
        blocks[None, :],
        (images & _LOW)[:, None],
        (images >> 32)[:, None],
        samples[:, None],
    )
    values = uniform(philox(counter, seed)).flatten(1)[:, :size]
    return values.reshape(len(images), height, width, channels)


def noise(
    seed: int,
    n: int,
    height: int,
    width: int,
    channels: int,
    first_index: int = 0,
    *,
    sample: int = 0,
) -> Tensor:
    """The noise that :func:`prsr.sample` uses.

    The noise of image i is a function of ``(seed, first_index + i, sample)`` only.

    Args:
        seed: from 0 to 2⁶⁴ − 1.
        n: number of images.
        height: of the high-resolution images in pixels.
        width: of the high-resolution images in pixels.
        channels: D.
        first_index: index of the first image.
        sample: number of the sample, from 0, if there are several of each image.

    Returns:
        ``float32 [n, height, width, channels]`` in [0, 1), on the CPU.

    Raises:
        TypeError: an argument is not an integer.
        ValueError: an argument is negative or too large.
    """
    seed = check_integer(seed, "seed", 0, 2**64)
    n = check_integer(n, "n", 0, 2**63)
    first_index = check_integer(first_index, "first_index", 0, 2**63 - n)
    sample = check_integer(sample, "sample", 0, 2**32)
    height = check_integer(height, "height", 0, 2**32)
    width = check_integer(width, "width", 0, 2**32)
    channels = check_integer(channels, "channels", 0, 2**32)
    images = torch.arange(first_index, first_index + n)
    return image_noise(seed, images, torch.full_like(images, sample), height, width, channels)
