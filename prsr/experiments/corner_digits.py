"""The MNIST corners task: its data set, and the classifier that scores samples.

A digit is at the top left or at the bottom right of a canvas, and the input does not contain its
position (Dahl, Norouzi and Shlens, arXiv 1702.00783, section 3.1). Both positions are equally
likely, so the best value of each sub-pixel alone is wrong for the image: the expected image shows
the digit faintly in both corners, and independent sub-pixels mix parts of both. Only a model that
conditions on the sub-pixels drawn so far places the digit in one corner.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prsr.config import PRSRConfig
from prsr.data.dataset import SuperResolutionImages, read_array
from prsr.data.image_arrays import Pixels

SIDE = 20
"""Side of a canvas in pixels; that of a digit is a half of it, that of an input a quarter."""

CONFIG = dataclasses.replace(
    PRSRConfig.preset("digits"), levels=16, low_height=5, low_width=5, prior_kernel=5
)
"""The preset ``digits`` with 16 levels and a canvas small enough for the prior to read all."""


class CornerDigits(SuperResolutionImages):
    """Canvases ``uint8 [N, 1, 20, 20]``; the input is the reduced digit without its position."""

    def inputs(self, hr: Pixels) -> Pixels:
        """``uint8 [n, 1, 20, 20]`` → ``[n, 1, 5, 5]``: means of 2×2 pixels of the digit."""
        top_left, bottom_right = corner_quarters(hr)
        digit = np.maximum(top_left, bottom_right)
        means = digit.reshape(len(hr), 1, 5, 2, 5, 2).mean(axis=(3, 5))
        return np.rint(means).astype(np.uint8)


def corner_quarters(canvases: NDArray[np.generic]) -> tuple[NDArray[np.generic], ...]:
    """The top left and the bottom right quarter: ``[..., 20, 20]`` → ``[..., 10, 10]`` twice."""
    half = SIDE // 2
    return canvases[..., :half, :half], canvases[..., half:, half:]


def read_digits(path: Path) -> Pixels:
    """The MNIST digits in a ``.npy`` file, ``uint8 [N, 1, 28, 28]``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: its array has another shape or dtype.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such array file: {path}")
    return read_array(path, PRSRConfig.preset("digits"))


def place_digits(digits: Pixels, seed: int) -> CornerDigits:
    """A canvas for each MNIST digit, which is placed in one of the two corners at random.

    Args:
        digits: ``uint8 [N, 1, 28, 28]``; a digit occupies the 20×20 pixels in the middle.
        seed: decides the corners.
    """
    half, levels = SIDE // 2, CONFIG.levels - 1
    canvases = np.zeros((len(digits), 1, SIDE, SIDE), np.uint8)
    at_bottom = np.random.default_rng(seed).integers(0, 2, len(digits)).astype(bool)
    for canvas, digit, below in zip(canvases, digits[:, 0, 4:24, 4:24], at_bottom, strict=True):
        small = Image.fromarray(digit).resize((half, half), Image.Resampling.BOX)
        corner_quarters(canvas)[int(below)][0] = np.rint(np.asarray(small) * (levels / 255))
    return CornerDigits(canvases, CONFIG)


@dataclass(frozen=True)
class Classification:
    """The classes of images, ``bool [N]`` each.

    Attributes:
        top_left: exactly one digit, at the top left.
        bottom_right: exactly one digit, at the bottom right.
        both: energy in both corners.
    """

    top_left: NDArray[np.bool_]
    bottom_right: NDArray[np.bool_]
    both: NDArray[np.bool_]


def classify(images: Pixels, digits: CornerDigits) -> Classification:
    """Locate the digit in each image by energy, the sum of squared grey levels with white at 1.

    E is the energy of the true digit. An image has exactly one digit in a corner if that corner has
    0.5 E to 2 E and the rest of the canvas less than 0.05 E. It has energy in both corners if each
    has more than 0.05 E.

    Args:
        images: a sample of each input, ``uint8 [N, 1, 20, 20]``.
        digits: the truth.
    """
    truth = energy(digits.pixels[:])
    total = energy(images)
    first, second = (energy(quarter) for quarter in corner_quarters(images))

    def single_digit(corner: NDArray[np.float64]) -> NDArray[np.bool_]:
        return (corner > 0.5 * truth) & (corner < 2 * truth) & (total - corner < 0.05 * truth)

    both = (first > 0.05 * truth) & (second > 0.05 * truth)
    return Classification(single_digit(first), single_digit(second), both)


def energy(images: NDArray[np.generic]) -> NDArray[np.float64]:
    """Sum of squared grey levels, white at 1: ``[N, 1, H, W]`` → ``float64 [N]``."""
    return np.square(images, dtype=np.float64).sum(axis=(1, 2, 3)) / (CONFIG.levels - 1) ** 2
