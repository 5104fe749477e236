"""How large the numbers are that a prior computes with, proven from its weights."""

from __future__ import annotations

import torch
from torch import Tensor

from prsr.engines.packing import Packed

LARGEST_VALUE = 0.5
"""Of what the networks see of an image."""

LARGEST_FP16 = torch.finfo(torch.float16).max

ROUNDING = 1.001
"""More than the rounding of any sum can add to a bound."""


def reach(matrix: Tensor, bias: Tensor, inputs: Tensor | float) -> Tensor:
    """How large outputs of ``inputs @ matrix + bias`` may be: ``[outputs]``."""
    scaled = matrix.abs() * (inputs if isinstance(inputs, float) else inputs[:, None])
    return scaled.sum(dim=0) + bias.abs()


def largest_operand(packed: Packed) -> float:
    """A bound on every number that a product of the prior reads, in magnitude.

    Gates lie in (−1, 1), and an image's values are bounded. Of conditional gates, which add what
    no weight of the prior bounds, nothing is said.
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


def check_fp16(packed: Packed) -> None:
    """No product reads a number that fp16 cannot hold.

    Raises:
        ValueError: one might, by :func:`largest_operand`.
    """
    largest = largest_operand(packed)
    if not ROUNDING * largest <= LARGEST_FP16:
        raise ValueError(
            f"precision fp16 holds numbers up to {LARGEST_FP16:,.0f}, and the prior's features "
            f"might reach {largest:,.0f}; precision must be fp32 or bf16 for this model"
        )
