"""Masked and gated convolutions of the prior network.

A feature ``c`` belongs to colour group ``c % D``. Inside a pixel, colours are drawn in the order of
their groups, so an output of group ``g`` may read inputs of groups below ``g`` (mask A) or up to
``g`` (mask B) at the centre tap (van den Oord et al., arXiv 1606.05328, section 2.3).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from prsr.config import PRSRConfig
from prsr.models.masked_head import HeadByColour, aligned_ends


def colour_groups(features: int, channels: int, repeats: int = 1) -> Tensor:
    """Colour group of each feature, ``int64 [repeats * features]``.

    ``repeats`` is 2 for the pre-activations of a gate: the features of both halves are numbered
    from 0.
    """
    return (torch.arange(features) % channels).repeat(repeats)


def colour_mask(inputs: Tensor, outputs: Tensor, *, strict: bool) -> Tensor:
    """Which input may reach which output inside one pixel: ``bool [outputs, inputs]``.

    Args:
        inputs: colour group of each input, ``int64 [inputs]``.
        outputs: colour group of each output, ``int64 [outputs]``.
        strict: mask A (input group < output group) rather than mask B (≤).
    """
    if strict:
        return inputs[None, :] < outputs[:, None]
    return inputs[None, :] <= outputs[:, None]


def gate(preactivations: Tensor) -> Tensor:
    """tanh(a₁)·σ(a₂) over the halves of dimension 1: ``[N, 2C, …]`` → ``[N, C, …]``."""
    first, second = preactivations.chunk(2, dim=1)
    if preactivations.is_contiguous(memory_format=torch.channels_last):
        # PyTorch is several times slower on halves that are not contiguous.
        first, second = first.clone(), second.clone()
    return torch.tanh(first) * torch.sigmoid(second)


class RowConvolution(nn.Conv2d):
    """A convolution over pixels x−p … x of a row, masked by colour at the last tap, x.

    Args:
        inputs: colour group of each input, ``int64 [inputs]``.
        outputs: colour group of each output, ``int64 [outputs]``.
        reach: p, pixels to the left that it reads; 0 makes it a masked 1×1 convolution.
        strict: mask A rather than mask B at the centre.
    """

    mask: Tensor

    def __init__(self, inputs: Tensor, outputs: Tensor, reach: int = 0, *, strict: bool) -> None:
        super().__init__(len(inputs), len(outputs), (1, reach + 1))
        self.reach = reach
        mask = torch.ones(self.weight.shape, dtype=torch.bool)
        mask[..., -1] = colour_mask(inputs, outputs, strict=strict)[..., None]
        self.register_buffer("mask", mask, persistent=False)

    def masked_weight(self) -> Tensor:
        """The weight, zero where the mask forbids, ``[outputs, inputs, 1, p + 1]``.

        Selected, not multiplied: a NaN or infinity under the mask has no effect.
        """
        return torch.where(self.mask, self.weight, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` → ``[N, outputs, H, W]``."""
        return F.conv2d(F.pad(x, (self.reach, 0)), self.masked_weight(), self.bias)


class RowsAboveConvolution(nn.Conv2d):
    """The prior's first vertical layer: the ⌊k0/2⌋ rows strictly above, k0 columns wide."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, (kernel // 2, kernel))
        self.reach = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` → ``[N, outputs, H, W]``; output row y depends on rows < y."""
        p = self.reach
        # Rows −p … H−2: no output depends on the last row.
        shifted = F.pad(x, (p, p, p, 0))[:, :, :-1]
        return super().forward(shifted)


class VerticalConvolution(nn.Conv2d):
    """Rows y−p … y, columns x−p … x+p of the vertical stack, p = ⌊k/2⌋; no mask is needed."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, (kernel // 2 + 1, kernel))
        self.reach = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` → ``[N, outputs, H, W]``."""
        p = self.reach
        return super().forward(F.pad(x, (p, p, p, 0)))


class ConditionalGates(nn.Conv2d):
    """1×1 convolution from the conditioning network's features to pre-activations of a gated block.

    It has no bias, because the layer that it adds to has one. It starts at zero, so that adding it
    to a trained model changes nothing.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)

    @override
    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


def logits_of(features: Tensor, weight: Tensor, bias: Tensor, config: PRSRConfig) -> Tensor:
    """A network's last 1×1 convolution: ``[N, C, H, W]`` → logits ``[N, K, D, H, W]``.

    In memory the levels of a sub-pixel are adjacent, ``[N, H, W, D, K]``: softmax and engines read
    them in this order.

    Args:
        features: input of the convolution.
        weight: ``[K·D, C, 1, 1]``; output j belongs to colour j % D, level j // D.
        bias: ``[K·D]``.
        config: for K and D.
    """
    by_level = config.levels, config.channels
    matrix = weight.flatten(1).unflatten(0, by_level).transpose(0, 1).flatten(0, 1)
    offsets = bias.unflatten(0, by_level).T.flatten()
    logits = F.linear(features.permute(0, 2, 3, 1), matrix, offsets)
    return logits.unflatten(-1, by_level[::-1]).permute(0, 4, 3, 1, 2)


class Logits(nn.Conv2d):
    """The conditioning network's last layer, a 1×1 convolution whose outputs are logits."""

    def __init__(self, config: PRSRConfig) -> None:
        super().__init__(config.conditioning_channels, config.levels * config.channels, 1)
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, K, D, H, W]``."""
        return logits_of(x, self.weight, cast(Tensor, self.bias), self.config)


class HiddenUnits(RowConvolution):
    """The first layer of the prior's head, a 1×1 convolution with mask B.

    Its outputs are sorted by colour group, unlike its weights.
    """

    order: Tensor

    def __init__(self, config: PRSRConfig) -> None:
        own = colour_groups(config.prior_channels, config.channels)
        hidden = colour_groups(config.head_channels, config.channels)
        super().__init__(own, hidden, strict=False)
        self.register_buffer("order", hidden.argsort(stable=True), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, M, H, W]``."""
        bias = cast(Tensor, self.bias)
        return F.conv2d(x, self.masked_weight()[self.order], bias[self.order])


class MaskedLogits(RowConvolution):
    """The prior's last layer, a 1×1 convolution with mask B whose outputs are logits.

    Its inputs are sorted by colour group, unlike its weights: see :class:`HiddenUnits`.
    """

    order: Tensor

    def __init__(self, config: PRSRConfig) -> None:
        hidden = colour_groups(config.head_channels, config.channels)
        outputs = colour_groups(config.levels * config.channels, config.channels)
        super().__init__(hidden, outputs, strict=False)
        self.config = config
        self.register_buffer("order", hidden.argsort(stable=True), persistent=False)
        self.ends = aligned_ends(config.head_channels, config.channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, M, H, W]`` → ``[N, K, D, H, W]``."""
        weight, bias = self.masked_weight()[:, self.order], cast(Tensor, self.bias)
        # Compilers and other devices are faster with one dense GEMM, and nothing is saved where a
        # colour has fewer units than ALIGNMENT.
        dense = x.device.type != "cpu" or torch.compiler.is_compiling()
        if dense or self.ends[0] == x.shape[1]:
            return logits_of(x, weight, bias, self.config)
        units = x.permute(0, 2, 3, 1)
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            units, weight, bias = (each.to(dtype) for each in (units, weight, bias))
        by_level = self.config.levels, self.config.channels
        weight = weight.flatten(1).unflatten(0, by_level).transpose(0, 1)
        logits = HeadByColour.apply(
            units.flatten(0, 2), weight, bias.unflatten(0, by_level).T, self.ends
        )
        return logits.unflatten(0, units.shape[:3]).permute(0, 4, 3, 1, 2)


class GatedBlock(nn.Module):
    """One layer of the gated PixelCNN: a vertical and a horizontal stack with a link between.

    Attributes:
        vertical: C→2C over the rows above and the current row.
        link: unmasked 1×1, 2C→2C, from the vertical pre-activations into the horizontal ones.
        horizontal: C→2C over the pixels to the left and, with mask B, the current pixel.
        mix: 1×1 with mask B, C→C, before the residual.
        conditional_vertical: 1×1, F→2C, from the conditioning network's features into the vertical
            pre-activations; None without conditional gates.
        conditional_horizontal: the same into the horizontal ones.
    """

    conditional_vertical: ConditionalGates | None
    conditional_horizontal: ConditionalGates | None

    def __init__(self, config: PRSRConfig) -> None:
        super().__init__()
        features = config.prior_channels
        own = colour_groups(features, config.channels)
        gated = colour_groups(features, config.channels, repeats=2)
        self.vertical = VerticalConvolution(features, 2 * features, config.prior_kernel)
        self.link = nn.Conv2d(2 * features, 2 * features, 1)
        self.horizontal = RowConvolution(own, gated, config.reach, strict=False)
        self.mix = RowConvolution(own, own, strict=False)
        for name in ("conditional_vertical", "conditional_horizontal"):
            gates = ConditionalGates(config.gate_inputs, 2 * features)
            self.add_module(name, gates if config.conditional_gates else None)

    def forward(self, v: Tensor, h: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both stacks after one layer.

        Args:
            v: ``[N, C, H, W]``.
            h: ``[N, C, H, W]``.
            features: of the conditioning network, ``[N, F, H, W]``; read by conditional gates.

        Returns:
            The next ``v`` and ``h``.
        """
        a = self.vertical(v)
        if self.conditional_vertical is not None:
            a = a + self.conditional_vertical(features)
        b = self.horizontal(h) + self.link(a)
        if self.conditional_horizontal is not None:
            b = b + self.conditional_horizontal(features)
        return gate(a), h + self.mix(gate(b))
