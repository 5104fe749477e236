"""Upper bounds on a prior's activations, derived from its weights."""

from __future__ import annotations

import torch
from torch import Tensor

from prsr.engines.grouped_weights import PackedPrior

LARGEST_VALUE = 0.5
"""The largest magnitude of a network input."""

LARGEST_FP16 = torch.finfo(torch.float16).max

ROUNDING = 1.001
"""Factor that exceeds the rounding error of any bound."""


def reach(matrix: Tensor, bias: Tensor, inputs: Tensor | float) -> Tensor:
    """Bounds on the magnitudes of ``inputs @ matrix + bias``: ``[outputs]``."""
    scaled = matrix.abs() * (inputs if isinstance(inputs, float) else inputs[:, None])
    return scaled.sum(dim=0) + bias.abs()


def largest_operand(packed: PackedPrior) -> float:
    """A bound on the magnitude of every GEMM input of the prior.

    Gates are in (−1, 1), and image values are bounded. The contribution of conditional gates is not
    included, because no weight of the prior bounds it.
    """
    first = packed.first_vertical
    vertical = reach(first.weight.flatten(1).T, first.bias, LARGEST_VALUE)
    own = [reach(w, w.new_zeros(w.shape[1]), LARGEST_VALUE) for w in packed.first_own]
    horizontal = reach(packed.first_left.weight, packed.first_left.bias, LARGEST_VALUE)
    horizontal = horizontal + torch.cat(own)
    largest = [vertical]
    for block in packed.blocks:
        kernel = block.vertical.weight.abs().sum(dim=(2, 3)).T
        preactivations = reach(kernel, block.vertical.bias, vertical)
        vertical = torch.ones_like(vertical)
        mix = torch.cat([reach(mix.weight, mix.bias, 1.0) for mix in block.mix])
        horizontal = horizontal + mix
        largest += [preactivations, horizontal]
    for part, layer in zip(packed.features.ranges, packed.hidden, strict=True):
        largest.append(reach(layer.weight, layer.bias, horizontal[: part.stop]))
    return float(torch.cat(largest).max())


def check_fp16(packed: PackedPrior) -> None:
    """Check that every GEMM input of the prior is in the range of fp16.

    Raises:
        ValueError: one may not be, according to :func:`largest_operand`.
    """
    largest = largest_operand(packed)
    if not ROUNDING * largest <= LARGEST_FP16:
        raise ValueError(
            f"precision fp16 holds numbers up to {LARGEST_FP16:,.0f}, but the prior's features "
            f"might reach {largest:,.0f}; precision must be fp32 or bf16 for this model"
        )
