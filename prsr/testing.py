"""Checks that a finished sample is correct for its noise, and random models to check it on.

One parallel forward pass of the *training* network over a finished image gives the CDF of every
sub-pixel. A correct sampler has chosen, at each, the level whose CDF interval contains u. This
checks every draw of an engine at any size, without the H·W·D passes of a naive sampler.
"""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prsr.config import PRSRConfig
from prsr.models.eval_mode import evaluating
from prsr.models.layers import RowConvolution, logits_of
from prsr.models.prsr import PRSR
from prsr.utils.argument_checks import (
    check_levels,
    check_mask,
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
        ValueError: the shapes do not fit each other, a value is not below K, noise is not in
            [0, 1), or the temperature is negative or not finite.
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
    if bool((noise < 0).any()) or bool((noise >= 1).any()):  # NaN passes, and results in NaN
        raise ValueError("noise must hold values in [0, 1), found others")
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
        model: the model that was sampled.
        lr: ``uint8 [N, D, h, w]``.
        hr: the samples, ``uint8 [N, D, H, W]``.
        noise: their noise, ``float32 [N, H, W, D]`` in [0, 1).
        temperature: a number, or one for each image, ``[N]``.
        mask: known sub-pixels, which are left out: ``bool [N, D, H, W]`` or broadcastable to it.

    Raises:
        TypeError: ``mask`` is not ``bool``; and as :func:`violations`.
        ValueError: ``mask`` has the wrong shape; and as :func:`violations`.
    """
    worst = violations(model, lr, hr, noise, temperature)
    if mask is not None:
        worst = worst.masked_fill(check_mask(mask, tuple(hr.shape)), 0.0)
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

    Raises:
        TypeError: as :func:`violations`.
        ValueError: as :func:`violations`.
    """
    for name, images in (("one", one), ("other", other)):
        check_pair(lr, images, model.config, model.device, name)
        check_values(images, name)
        check_levels(images, name, model.config)
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


def random_model(config: PRSRConfig, gain: float, seed: int = 0) -> PRSR:
    """A model in evaluation mode with every number random, to check engines with.

    In an untrained model the conditioning logits of a 32×32 image differ by hundreds of nats and
    the prior's by a tenth, so an engine that ignores the prior draws nearly the same images. Here
    the logits of both networks differ by nats.

    Args:
        config: the model's configuration.
        gain: standard deviation of the prior's convolutions, times the root of their inputs.
        seed: of the random numbers.
    """
    model = PRSR(config).eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, layer in model.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                std = gain if name.startswith("prior") else 0.7
                inputs = layer.weight[0].numel()
                layer.weight.normal_(0, std / math.sqrt(inputs), generator=random)
                if layer.bias is not None:
                    layer.bias.normal_(0, 0.5, generator=random)
            elif isinstance(layer, nn.BatchNorm2d):
                for values in (layer.weight, cast(Tensor, layer.running_var)):
                    values.uniform_(0.5, 1.5, generator=random)
                for values in (layer.bias, cast(Tensor, layer.running_mean)):
                    values.normal_(0, 0.3, generator=random)
    return model


def random_images(config: PRSRConfig, n: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Random images of the model's levels, ``uint8 [n, D, height, width]``, on the CPU.

    The first images of a seed are the same for every ``n``.
    """
    shape = (n, config.channels, height, width)
    random = torch.Generator().manual_seed(seed)
    return torch.randint(config.levels, shape, dtype=torch.uint8, generator=random)


def with_rounded_operands(model: PRSR, operand: torch.dtype = torch.bfloat16) -> PRSR:
    """A copy whose prior rounds weights and inputs of all but its first layers to a dtype.

    This defines what engines compute in bf16 and fp16 (docs/SPEC.md, section 2).
    """
    rounded = copy.deepcopy(model)
    hidden, relu, last = rounded.prior.head
    layers = [m for m in rounded.prior.blocks.modules() if isinstance(m, nn.Conv2d)] + [hidden]
    for layer in [*layers, last]:
        weight = cast(Tensor, layer.weight)
        weight.data = weight.data.to(operand).float()
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(operand).float(),))
    # The prior uses the last layer's weights without calling the layer.
    relu.register_forward_hook(lambda *call: call[2].to(operand).float())
    return rounded


def plain_loss(model: PRSR, lr: Tensor, hr: Tensor) -> Tensor:
    """CE(A+B) + CE(A) by one PyTorch function after another, with a dense head; a scalar.

    :func:`prsr.prsr_loss` computes the same in fewer operations.
    """
    a, features = model.conditioning(lr, with_features=True)
    _, h = model.prior.stacks(hr, features)[-1]
    hidden, _, last = (cast(RowConvolution, layer) for layer in model.prior.head)
    units = F.relu(F.conv2d(h, hidden.masked_weight(), hidden.bias))
    b = logits_of(units, last.masked_weight(), cast(Tensor, last.bias), model.config)
    alone = a.to(torch.promote_types(a.dtype, torch.float32))
    target = hr.permute(0, 2, 3, 1).flatten().long()
    losses = (
        F.cross_entropy(each.permute(0, 3, 4, 2, 1).flatten(0, 3), target)
        for each in (alone + b, alone)
    )
    return next(losses) + next(losses)
