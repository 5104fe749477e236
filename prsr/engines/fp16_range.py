"""Proof that a prior's activations are in the range of fp16.

Gates are in (−1, 1) and image values are bounded, so the weights alone bound every GEMM input,
except where conditional gates add the conditioning network's features. No weight of the prior
bounds these. They enter the vertical pre-activations, and nothing else that is stored in fp16: the
horizontal stack adds them to fp32 sums. So they are measured for each job, before its first row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prsr.engines.grouped_weights import PackedPrior

LARGEST_VALUE = 0.5
"""The largest magnitude of a network input."""

LARGEST_FP16 = torch.finfo(torch.float16).max

ROUNDING = 1.002
"""Factor that exceeds the rounding error of any bound: weights and inputs are each rounded to fp16,
with an error of up to 2⁻¹¹, and sums are fp32."""


def reach(matrix: Tensor, bias: Tensor, inputs: Tensor | float) -> Tensor:
    """Bounds on the magnitudes of ``inputs @ matrix + bias``: ``[outputs]``."""
    scaled = matrix.abs() * (inputs if isinstance(inputs, float) else inputs[:, None])
    return scaled.sum(dim=0) + bias.abs()


@dataclass(frozen=True)
class Bounds:
    """Upper bounds on the magnitudes of all GEMM inputs of a prior.

    Attributes:
        vertical: of the features of the vertical stack and its pre-activations, without conditional
            gates: ``[V]``.
        conditional: what a conditioning feature of magnitude 1 adds to these, ``[F, V]``.
        horizontal: of the features of the horizontal stack and the hidden units.
    """

    vertical: Tensor
    conditional: Tensor
    horizontal: Tensor

    @classmethod
    def of(cls, packed: PackedPrior) -> Bounds:
        """The bounds that the weights imply."""
        first = packed.first_vertical
        vertical = reach(first.weight.flatten(1).T, first.bias, LARGEST_VALUE)
        own = [reach(w, w.new_zeros(w.shape[1]), LARGEST_VALUE) for w in packed.first_own]
        horizontal = reach(packed.first_left.weight, packed.first_left.bias, LARGEST_VALUE)
        horizontal = horizontal + torch.cat(own)
        none = vertical.new_zeros(packed.config.gate_inputs, len(vertical))
        of_vertical, conditional, of_horizontal = [vertical], [none], []
        for block in packed.blocks:
            kernel = block.vertical.weight.abs().sum(dim=(2, 3)).T
            of_vertical.append(reach(kernel, block.vertical.bias, vertical))
            conditional.append(block.conditional.abs())
            vertical = torch.ones_like(vertical)
            mix = torch.cat([reach(mix.weight, mix.bias, 1.0) for mix in block.mix])
            horizontal = horizontal + mix
            of_horizontal.append(horizontal)
        for part, layer in zip(packed.features.ranges, packed.hidden, strict=True):
            of_horizontal.append(reach(layer.weight, layer.bias, horizontal[: part.stop]))
        return cls(torch.cat(of_vertical), torch.cat(conditional, dim=1), torch.cat(of_horizontal))

    def largest(self) -> float:
        """The largest of all, without conditional gates."""
        return float(torch.cat([self.vertical, self.horizontal]).max())

    def largest_with(self, features: Tensor) -> float:
        """The largest one that conditioning features ``[N, F, H, W]`` affect, or are."""
        magnitudes = features.abs().amax(dim=(0, 2, 3))
        return float(torch.cat([self.vertical + magnitudes @ self.conditional, magnitudes]).max())


def is_in_range(largest: float) -> bool:
    """Whether numbers up to this bound are certainly finite in fp16; false for NaN."""
    return ROUNDING * largest <= LARGEST_FP16


def check_fp16(packed: PackedPrior) -> Bounds:
    """Check that every GEMM input of the prior is in the range of fp16, but for conditional gates.

    Returns:
        The bounds, for :func:`check_features`.

    Raises:
        ValueError: one may not be.
    """
    bounds = Bounds.of(packed)
    largest = bounds.largest()
    if not is_in_range(largest):
        raise ValueError(
            f"precision fp16 holds numbers up to {LARGEST_FP16:,.0f}, but the prior's features "
            f"might reach {largest:,.0f}; precision must be fp32 or bf16 for this model"
        )
    return bounds


def check_features(bounds: Bounds | None, features: Tensor) -> None:
    """Check that conditional gates stay in the range of fp16 with these features.

    It waits for the device, once before the first row.

    Args:
        bounds: of the prior; None in other precisions, which have the range of fp32.
        features: of a job, ``float32 [N, F, H, W]``; F is 0 without conditional gates.

    Raises:
        ValueError: they may not.
    """
    if bounds is None or not features.numel():
        return
    largest = bounds.largest_with(features)
    if not is_in_range(largest):
        raise ValueError(
            f"precision fp16 holds numbers up to {LARGEST_FP16:,.0f}, but with these images' "
            f"conditioning features, up to {float(features.abs().max()):,.0f}, conditional gates "
            f"might reach {largest:,.0f}; precision must be fp32 or bf16 for these images"
        )
