"""The test that settles everything: whether an image is what its noise decides.

One parallel forward of the *training* network over a finished image gives the CDF at every
sub-pixel; a right sampler has chosen, at each, the level whose interval holds u. So every choice of
an engine is checked at any size, without the H·W·D forwards of the naive sampler.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from prsr.models.eval_mode import evaluating
from prsr.models.prsr import PRSR
from prsr.utils.argument_checks import (
    check_levels,
    check_pair,
    check_temperature,
    check_values,
    describe,
)
from prsr.utils.torch_settings import exact_fp32, own_defaults


@own_defaults()
def violations(
    model: PRSR, lr: Tensor, hr: Tensor, noise: Tensor, temperature: float | Tensor
) -> Tensor:
    """By how much u lies outside the CDF interval of the chosen level, at each sub-pixel.

    0 where cdf[y − 1] ≤ u < cdf[y]. Where the temperature is 0 there is no interval: then it is by
    how much the chosen level is less probable, at temperature 1, than the most probable one.

    Args:
        model: that the image was drawn from; used in evaluation mode.
        lr: ``uint8 [N, D, h, w]``.
        hr: the drawn images, ``uint8 [N, D, H, W]``.
        noise: that they were drawn with, ``float32 [N, H, W, D]`` in [0, 1).
        temperature: a number, or one for each image, ``[N]``.

    Returns:
        ``float64 [N, D, H, W]``.

    Raises:
        TypeError: an image is not ``uint8``, or the temperature no number.
        ValueError: the shapes do not fit each other, a value is not below K, or the temperature is
            negative or not finite.
    """
    check_pair(lr, hr, model.config, model.device)
    for name, tensor in (("lr", lr), ("hr", hr)):
        check_values(tensor, name)
        check_levels(tensor, name, model.config)
    if not isinstance(noise, Tensor) or not noise.is_floating_point():
        raise TypeError(f"noise must be a float32 tensor, got {describe(noise)}")
    check_values(noise, "noise")
    expected = (hr.shape[0], *hr.shape[2:], hr.shape[1])
    if tuple(noise.shape) != expected:
        raise ValueError(f"noise must be {list(expected)}, got {list(noise.shape)}")
    with exact_fp32(lr.device), evaluating(model):
        logits = model(lr, hr).logits.double()
    chosen = hr.long()[:, None]
    u = noise.to(logits).permute(0, 3, 1, 2)
    t = check_temperature(temperature, len(lr)).to(logits)[:, None, None, None, None]

    logits = logits - logits.amax(dim=1, keepdim=True)
    cdf = (logits / torch.where(t > 0, t, 1)).softmax(dim=1).cumsum(dim=1)
    upper = cdf.gather(1, chosen)[:, 0]
    lower = F.pad(cdf, (0, 0, 0, 0, 0, 0, 1, 0)).gather(1, chosen)[:, 0]
    outside = torch.maximum(lower - u, u - upper).clamp(min=0)

    p = logits.softmax(dim=1)
    short = p.amax(dim=1) - p.gather(1, chosen)[:, 0]
    return torch.where(t[:, 0] > 0, outside, short)


def cdf_violation(
    model: PRSR,
    lr: Tensor,
    hr: Tensor,
    noise: Tensor,
    temperature: float | Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """:func:`violations` at the worst sub-pixel of each image, ``float64 [N]``.

    An fp32 engine is right when it is at most 1e-4 (SPEC's ε) on every image. NaN anywhere
    comes out as NaN, which no bound passes.

    Args:
        model: as for :func:`violations`, like ``lr``, ``hr``, ``noise`` and ``temperature``.
        lr: likewise.
        hr: likewise.
        noise: likewise.
        temperature: likewise.
        mask: sub-pixels that were given, not drawn, ``bool [N, D, H, W]``; they do not count.
    """
    worst = violations(model, lr, hr, noise, temperature)
    if mask is not None:
        worst = worst.masked_fill(mask, 0.0)
    return worst.flatten(1).amax(dim=1)


def divergence_distance(
    model: PRSR,
    lr: Tensor,
    one: Tensor,
    other: Tensor,
    noise: Tensor,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    """Where two engines' images part, how far u was from an edge of the CDF, ``float64 [N]``.

    Rounding may tip a draw whose u lies within ε of an edge, and everything after it may differ.
    So engines agree when this is at most ε wherever their images differ, and few do. 0 where
    they are equal.

    Args:
        model: that both were drawn from.
        lr: ``uint8 [N, D, h, w]``.
        one: an image of each, ``uint8 [N, D, H, W]``.
        other: drawn with the same noise by another engine.
        noise: ``float32 [N, H, W, D]``.
        temperature: a number, or one for each image.
    """
    # Raster order, colours within a pixel: as the sub-pixels are drawn.
    parted = (one != other).permute(0, 2, 3, 1).flatten(1)
    first = parted.int().argmax(dim=1, keepdim=True)
    # Up to there the images are equal, so ``one``'s CDF is the one that both drew from; the
    # other's choice, put there, shows by how much u lies outside its interval.
    flat = one.permute(0, 2, 3, 1).flatten(1)
    swapped = flat.scatter(1, first, other.permute(0, 2, 3, 1).flatten(1).gather(1, first))
    n, channels, height, width = one.shape
    hybrid = swapped.view(n, height, width, channels).permute(0, 3, 1, 2).contiguous()
    outside = torch.maximum(
        *(
            violations(model, lr, image, noise, temperature)
            .permute(0, 2, 3, 1)
            .flatten(1)
            .gather(1, first)[:, 0]
            for image in (one, hybrid)
        )
    )
    return torch.where(parted.any(dim=1), outside, 0.0)
