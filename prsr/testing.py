"""Checks that a finished sample is correct for its noise.

One parallel forward pass of the *training* network over a finished image gives the CDF of every
sub-pixel. A correct sampler has chosen, at each, the level whose CDF interval contains u. This
checks every draw of an engine at any size, without the H·W·D passes of a naive sampler.
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
    """Distance of u from the CDF interval of the chosen level, for each sub-pixel.

    0 where cdf[y − 1] ≤ u < cdf[y]. At temperature 0 there is no interval: the value is then the
    probability, at temperature 1, of the likeliest level minus that of the chosen level.

    Args:
        model: the model that was sampled; used in evaluation mode.
        lr: ``uint8 [N, D, h, w]``.
        hr: the samples, ``uint8 [N, D, H, W]``.
        noise: their noise, ``float32 [N, H, W, D]`` in [0, 1).
        temperature: a number, or one for each image, ``[N]``.

    Returns:
        ``float64 [N, D, H, W]``.

    Raises:
        TypeError: an image is not ``uint8``, or the temperature is not a number.
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
    """The largest of :func:`violations` in each image, ``float64 [N]``.

    An fp32 engine is correct if this is at most 1e-4 (ε in docs/SPEC.md) for every image. NaN
    anywhere results in NaN, which fails every comparison.

    Args:
        model: as for :func:`violations`, like ``lr``, ``hr``, ``noise`` and ``temperature``.
        lr: likewise.
        hr: likewise.
        noise: likewise.
        temperature: likewise.
        mask: known sub-pixels, ``bool [N, D, H, W]``, which are left out.
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
    """At the first draw on which two engines differ, the distance of u from the CDF edge.

    Rounding may change a draw whose u is within ε of an edge, and all draws after it. Two engines
    agree when few images differ and this distance is at most ε for those. 0 for equal images.

    Args:
        model: the model that was sampled.
        lr: ``uint8 [N, D, h, w]``.
        one: samples of one engine, ``uint8 [N, D, H, W]``.
        other: samples of another engine with the same noise.
        noise: ``float32 [N, H, W, D]``.
        temperature: a number, or one for each image.

    Returns:
        ``float64 [N]``.
    """
    # In the order in which sub-pixels are drawn: raster order, colours within a pixel.
    differs = (one != other).permute(0, 2, 3, 1).flatten(1)
    first = differs.int().argmax(dim=1, keepdim=True)
    # Before it the images are equal, so that both engines drew from the CDF of ``one``. With the
    # other engine's level in place, the distance of u from that level's interval follows.
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
    return torch.where(differs.any(dim=1), outside, 0.0)
