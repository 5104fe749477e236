"""MNIST corners: a digit at the top left or bottom right of a canvas, and an input that tells not.

The toy of Dahl, Norouzi and Shlens (arXiv 1702.00783), section 3.1. Both places are equally likely,
so what is best for each sub-pixel by itself is wrong for the image: the expected image has two
ghosts, independent draws mix pieces of both, and only a model that sees what it has drawn commits
itself to one.
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
from prsr.data.images import Pixels

SIDE = 20
"""Pixels of a canvas; a digit is half as wide, an input a quarter."""

CONFIG = dataclasses.replace(
    PRSRConfig.preset("digits"), levels=16, low_height=5, low_width=5, prior_kernel=5
)
"""The preset for digits, on a smaller canvas all of which the prior sees, in 16 grey levels."""


class CornerDigits(SuperResolutionImages):
    """Canvases ``uint8 [N, 1, 20, 20]``; the input is the digit, reduced, wherever it stands."""

    def inputs(self, hr: Pixels) -> Pixels:
        """``uint8 [n, 1, 20, 20]`` → ``[n, 1, 5, 5]``: means of 2×2 pixels of the digit."""
        first, second = corners(hr)
        digit = np.maximum(first, second)
        means = digit.reshape(len(hr), 1, 5, 2, 5, 2).mean(axis=(3, 5))
        return np.rint(means).astype(np.uint8)


def corners(canvases: NDArray[np.generic]) -> tuple[NDArray[np.generic], ...]:
    """The top left and the bottom right quarter, ``[..., 10, 10]`` of ``[..., 20, 20]``."""
    half = SIDE // 2
    return canvases[..., :half, :half], canvases[..., half:, half:]


def read_digits(path: Path) -> Pixels:
    """MNIST digits of an array file, ``uint8 [N, 1, 28, 28]``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such array file: {path}")
    return read_array(path, PRSRConfig.preset("digits"))


def place_digits(digits: Pixels, seed: int) -> CornerDigits:
    """A canvas for each of MNIST's digits, in a corner that ``seed`` and its place in line decide.

    Args:
        digits: ``uint8 [N, 1, 28, 28]``; the digit stands in the 20×20 pixels in the middle.
        seed: of the corners.
    """
    half, levels = SIDE // 2, CONFIG.levels - 1
    canvases = np.zeros((len(digits), 1, SIDE, SIDE), np.uint8)
    lower = np.random.default_rng(seed).integers(0, 2, len(digits)).astype(bool)
    for canvas, digit, below in zip(canvases, digits[:, 0, 4:24, 4:24], lower, strict=True):
        small = Image.fromarray(digit).resize((half, half), Image.Resampling.BOX)
        corners(canvas)[int(below)][0] = np.rint(np.asarray(small) * (levels / 255))
    return CornerDigits(canvases, CONFIG)


@dataclass(frozen=True)
class Verdicts:
    """What the classifier says of each image, ``bool [N]``.

    Attributes:
        top_left: exactly one digit, at the top left.
        bottom_right: exactly one digit, at the bottom right.
        both: energy in both corners.
    """

    top_left: NDArray[np.bool_]
    bottom_right: NDArray[np.bool_]
    both: NDArray[np.bool_]


def classify(images: Pixels, digits: CornerDigits) -> Verdicts:
    """Tell where a digit is by energy, the sum of squared grey levels, where white is 1.

    A corner holds the digit when its energy is half to twice the true digit's; it is empty below a
    twentieth of it, and so must be the other three quarters of the canvas together. A corner has
    *some* energy from a twentieth on.

    Args:
        images: what is made of each input, ``uint8 [N, 1, 20, 20]``.
        digits: the truth.
    """
    truth = energy(digits.pixels[:])
    whole = energy(images)
    first, second = (energy(part) for part in corners(images))

    def only(one: NDArray[np.float64]) -> NDArray[np.bool_]:
        return (one > 0.5 * truth) & (one < 2 * truth) & (whole - one < 0.05 * truth)

    return Verdicts(only(first), only(second), (first > 0.05 * truth) & (second > 0.05 * truth))


def energy(images: NDArray[np.generic]) -> NDArray[np.float64]:
    """Sum of squares, ``[N, ...]`` → ``[N]``."""
    return np.square(images, dtype=np.float64).sum(axis=(1, 2, 3)) / (CONFIG.levels - 1) ** 2
