"""Image metrics, computed for each image, and the confidence interval of their mean over images.

Images are in the unit range: black is 0, white is 1. pSNR, SSIM and MS-SSIM come from torchmetrics,
the intervals from SciPy.

Diversity replaces the mean pairwise LPIPS, whose networks need torchvision. It compares samples of
one input by MS-SSIM, as Odena, Olah and Shlens (arXiv 1610.09585) compare samples of one class. Any
kind of variation raises it, including noise, so it must be read together with the other metrics.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prsr.utils.headless_matplotlib import load_matplotlib

with suppress(ImportError):  # torchmetrics imports matplotlib if it is installed
    load_matplotlib()
try:
    from scipy.stats import binomtest, bootstrap
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )
except ImportError as error:
    raise ImportError(
        f"evaluation needs the extra `evaluate`: pip install 'prsr[evaluate]' ({error})"
    ) from error

MS_SSIM_SCALES = (0.0448, 0.2856, 0.3001)
"""Weights of the first three of the usual five scales: 32×32 images are too small for more."""

MS_SSIM_WINDOW, MS_SSIM_SIGMA = 7, 0.9
"""Gaussian window of MS-SSIM in pixels, and its σ: the usual 11 and 1.5 exceed the third scale."""

SSIM_SIGMA = 1.5
"""σ of the Gaussian window of SSIM, in pixels; the window is then the usual 11 pixels wide."""

RESAMPLINGS = 2000
"""Bootstrap resamplings of the images for each interval."""

PSNR_CEILING = 58.92
"""Largest pSNR, in dB: that of rounding to 256 levels, whose error has variance 1/12."""


def describe_metrics(height: int, width: int) -> dict[str, str]:
    """How each metric is computed for images of H × W pixels, as notes on a table, by metric."""
    scales = ", ".join(f"{weight:.3f}" for weight in ms_ssim_scales(height, width))
    return {
        "pSNR": f"of each sample, at most {PSNR_CEILING} dB: the error of rounding",
        "SSIM": f"Gaussian window of 11 pixels, σ {SSIM_SIGMA}",
        "MS-SSIM": f"scale weights {scales}; Gaussian window of {MS_SSIM_WINDOW} pixels, "
        f"σ {MS_SSIM_SIGMA}",
        "consistency": "mean squared error between the input and the reduced output; white is 1",
        "diversity": "1 − MS-SSIM between samples of one input",
        "intervals": f"95%, bootstrap over images, {RESAMPLINGS:,} resamplings",
    }


def to_unit_range(images: Tensor, levels: int) -> Tensor:
    """``uint8`` values 0 … K−1 as ``float32`` in [0, 1]."""
    return images.float() / (levels - 1)


def ms_ssim_scales(height: int, width: int) -> tuple[float, ...]:
    """Weights of the scales that fit images of H × W pixels, normalised to sum 1.

    Raises:
        ValueError: the images are too small for one scale.
    """
    side = min(height, width)
    for scales in range(len(MS_SSIM_SCALES), 0, -1):
        # torchmetrics' own bound, and half a window of reflection padding at the last scale.
        bound = side // max(1, scales - 1) ** 2 >= MS_SSIM_WINDOW
        if bound and side // 2 ** (scales - 1) > MS_SSIM_WINDOW // 2:
            weights = MS_SSIM_SCALES[:scales]
            return tuple(weight / sum(weights) for weight in weights)
    raise ValueError(
        f"images must be at least {MS_SSIM_WINDOW} pixels high and wide for MS-SSIM, "
        f"got {height}×{width}"
    )


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB: ``float32 [N, D, H, W]`` twice → ``[N]``."""
    values = peak_signal_noise_ratio(images, truth, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return values.clamp(max=PSNR_CEILING)


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image: ``float32 [N, D, H, W]`` twice → ``[N]``."""
    values = structural_similarity_index_measure(
        images, truth, sigma=SSIM_SIGMA, data_range=1.0, reduction="none"
    )
    return cast(Tensor, values).reshape(len(images))


def ms_ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Multi-scale structural similarity of each image: ``float32 [N, D, H, W]`` twice → ``[N]``.

    Raises:
        ValueError: the images are too small.
    """
    values = multiscale_structural_similarity_index_measure(
        images,
        truth,
        sigma=MS_SSIM_SIGMA,
        kernel_size=MS_SSIM_WINDOW,
        data_range=1.0,
        betas=ms_ssim_scales(*images.shape[2:]),
        normalize="relu",
        reduction="none",
    )
    return values.reshape(len(images))


def mean_squared_error(images: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error of each image: ``float32 [N, D, H, W]`` twice → ``[N]``."""
    return (images - truth).square().flatten(1).mean(dim=1)


def diversity(samples: Tensor) -> Tensor:
    """1 − MS-SSIM, the mean over pairs of samples: ``float32 [N, S, D, H, W]`` → ``[N]``.

    It is 0 if all samples of an image are equal.

    Raises:
        ValueError: there are fewer than two samples, or the images are too small.
    """
    if samples.shape[1] < 2:
        raise ValueError(f"diversity needs at least two samples per image, got {samples.shape[1]}")
    pairs = combinations(samples.unbind(dim=1), 2)
    return 1 - torch.stack([ms_ssim(one, other) for one, other in pairs]).mean(dim=0)


@dataclass(frozen=True)
class Interval:
    """A mean over images and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


def confidence_interval(values: Tensor, level: float = 0.95) -> Interval:
    """The mean of values ``[N]`` and its percentile bootstrap interval.

    The resampling is seeded: equal values give equal intervals.

    Args:
        values: the metric of each image.
        level: confidence level, between 0 and 1.

    Raises:
        ValueError: there are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"a confidence interval needs at least two images, got {len(values)}")
    numbers = values.double().numpy()
    interval = bootstrap(
        (numbers,),
        np.mean,
        confidence_level=level,
        n_resamples=RESAMPLINGS,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(numbers.mean()), float(interval.low), float(interval.high))


def share_interval(flags: Tensor | NDArray[np.bool_]) -> Interval:
    """The share of true values in ``bool [N]``, with its 95% interval by Wilson's method (1927)."""
    interval = binomtest(int(flags.sum()), len(flags)).proportion_ci(method="wilson")
    return Interval(int(flags.sum()) / len(flags), float(interval.low), float(interval.high))
