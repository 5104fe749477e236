"""Masked and gated convolutions of the prior network.

A feature ``c`` belongs to colour group ``c % D``. Inside a pixel, colours are drawn in the order of
their groups, so an output of group ``g`` may read inputs of groups below ``g`` (mask A) or up to
``g`` (mask B) at the centre tap (van den Oord et al., arXiv 1606.05328, section 2.3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prsr.config import PRSRConfig


def colour_groups(features: int, channels: int, repeats: int = 1) -> Tensor:
    """Colour group of each feature, ``int64 [repeats * features]``.

    ``repeats`` is 2 for the pre-activations of a gate: both halves number their features anew.
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
    return torch.tanh(first) * torch.sigmoid(second)


class RowConvolution(nn.Conv2d):
    """A convolution over pixels x−p … x of the own row, masked by colour at x: the last tap.

    Args:
        inputs: colour group of each input, ``int64 [inputs]``.
        outputs: colour group of each output, ``int64 [outputs]``.
        reach: p, how many pixels to the left it sees; 0 makes it a masked 1×1 convolution.
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
        """The weight with what the mask forbids set to zero, ``[outputs, inputs, 1, p + 1]``.

        By selection, not by multiplication: a NaN or infinity under the mask stays unseen.
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
        """``[N, inputs, H, W]`` → ``[N, outputs, H, W]``; row y of the result sees rows < y."""
        p = self.reach
        # Rows −p … H−2: the last row has nothing below it that could look at it.
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


class GatedBlock(nn.Module):
    """One layer of the gated PixelCNN: a vertical and a horizontal stack with a link between.

    Attributes:
        vertical: C→2C over the rows above and the own one.
        link: unmasked 1×1, 2C→2C, from the vertical pre-activations into the horizontal ones.
        horizontal: C→2C over the pixels to the left and, masked (B), the own one.
        mix: 1×1 with mask B, C→C, before the residual.
    """

    def __init__(self, config: PRSRConfig) -> None:
        super().__init__()
        features = config.prior_channels
        own = colour_groups(features, config.channels)
        gated = colour_groups(features, config.channels, repeats=2)
        self.vertical = VerticalConvolution(features, 2 * features, config.prior_kernel)
        self.link = nn.Conv2d(2 * features, 2 * features, 1)
        self.horizontal = RowConvolution(own, gated, config.reach, strict=False)
        self.mix = RowConvolution(own, own, strict=False)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Both stacks one layer on: ``[N, C, H, W]`` each, in and out."""
        a = self.vertical(v)
        return gate(a), h + self.mix(gate(self.horizontal(h) + self.link(a)))
