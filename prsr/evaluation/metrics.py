"""How good images are, each by itself, and how sure the mean over images is.

Everything is measured where black is 0 and white is 1. The similarities are torchmetrics', the
intervals SciPy's.

Diversity stands in for the mean pairwise LPIPS, whose networks would need torchvision: samples of
one input are compared by MS-SSIM, as Odena, Olah and Shlens (arXiv 1610.09585) compare samples of
one class. It sees variety of any kind, noise as well: read it beside the other columns.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import numpy as np
import torch
from torch import Tensor

from prsr.utils.headless_matplotlib import load_matplotlib

with suppress(ImportError):  # torchmetrics imports matplotlib where there is one
    load_matplotlib()
try:
    from scipy.stats import bootstrap
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )
except ImportError as error:
    raise ImportError(
        f"evaluation needs the extra of that name: pip install 'prsr[evaluate]' ({error})"
    ) from error

MS_SSIM_SCALES = (0.0448, 0.2856, 0.3001)
"""Weights of the first three of the usual five scales: 32×32 pixels leave no room for more."""

MS_SSIM_WINDOW, MS_SSIM_SIGMA = 7, 0.9
"""Pixels of the Gaussian window and its σ; the usual 11 and 1.5 do not fit the third scale."""

SSIM_SIGMA = 1.5
"""The usual window: 11 pixels."""

RESAMPLINGS = 2000
"""Of the images, for an interval."""

PSNR_CEILING = 58.92
"""pSNR of equal images, dB: the error of rounding to 256 levels, a variance of 1/12."""


def describe_measures(height: int, width: int) -> dict[str, str]:
    """What a reader of a table must know of its measures, for images of this size."""
    scales = ", ".join(f"{weight:.3f}" for weight in ms_ssim_scales(height, width))
    return {
        "pSNR": f"of each image, at most {PSNR_CEILING} dB, the error of rounding",
        "SSIM": f"Gaussian window of 11 pixels, σ {SSIM_SIGMA}",
        "MS-SSIM": f"scales weighted {scales}; Gaussian window of {MS_SSIM_WINDOW} pixels, "
        f"σ {MS_SSIM_SIGMA}",
        "consistency": "mean squared error between the input and the reduced output, white is 1",
        "diversity": "1 − MS-SSIM between samples of one input",
        "intervals": f"95%, bootstrap over images, {RESAMPLINGS:,} resamplings",
    }


def unit(images: Tensor, levels: int) -> Tensor:
    """``uint8`` values 0 … K−1 as ``float32`` in 0 … 1."""
    return images.float() / (levels - 1)


def ms_ssim_scales(height: int, width: int) -> tuple[float, ...]:
    """The weights of as many scales as images of this size have room for; they add up to 1.

    Raises:
        ValueError: there is no room for one.
    """
    side = min(height, width)
    for scales in range(len(MS_SSIM_SCALES), 0, -1):
        # torchmetrics' own bound, and room for half a window's reflection on the last scale.
        bound = side // max(1, scales - 1) ** 2 >= MS_SSIM_WINDOW
        if bound and side // 2 ** (scales - 1) > MS_SSIM_WINDOW // 2:
            weights = MS_SSIM_SCALES[:scales]
            return tuple(weight / sum(weights) for weight in weights)
    raise ValueError(
        f"images must be at least {MS_SSIM_WINDOW} pixels high and wide to be compared, "
        f"got {height}×{width}"
    )


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB: two ``float32 [N, D, H, W]`` → ``[N]``."""
    values = peak_signal_noise_ratio(images, truth, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return values.clamp(max=PSNR_CEILING)


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity: two ``float32 [N, D, H, W]`` → ``[N]``."""
    values = structural_similarity_index_measure(
        images, truth, sigma=SSIM_SIGMA, data_range=1.0, reduction="none"
    )
    return cast(Tensor, values).reshape(len(images))


def ms_ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity over several scales: two ``float32 [N, D, H, W]`` → ``[N]``.

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
    """Two ``float32 [N, D, H, W]`` → ``[N]``."""
    return (images - truth).square().flatten(1).mean(dim=1)


def diversity(samples: Tensor) -> Tensor:
    """1 − MS-SSIM, the mean over pairs of samples: ``float32 [N, S, D, H, W]`` → ``[N]``.

    0 where the samples of an image are all the same.

    Raises:
        ValueError: there are not two samples, or the images are too small.
    """
    if samples.shape[1] < 2:
        raise ValueError(f"diversity needs two samples of an image, got {samples.shape[1]}")
    pairs = combinations(samples.unbind(dim=1), 2)
    return 1 - torch.stack([ms_ssim(one, other) for one, other in pairs]).mean(dim=0)


@dataclass(frozen=True)
class Interval:
    """A mean over images and its confidence interval."""

    mean: float
    low: float
    high: float


def confidence(values: Tensor, level: float = 0.95) -> Interval:
    """The mean of ``[N]`` and its interval, by the percentiles of ``RESAMPLINGS`` means.

    The same values give the same interval.

    Raises:
        ValueError: there are not two values.
    """
    if len(values) < 2:
        raise ValueError(f"a confidence interval needs two images at least, got {len(values)}")
    numbers = values.double().numpy()
    found = bootstrap(
        (numbers,),
        np.mean,
        confidence_level=level,
        n_resamples=RESAMPLINGS,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(numbers.mean()), float(found.low), float(found.high))
