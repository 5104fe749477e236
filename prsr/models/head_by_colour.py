"""The prior's last product on a CPU, without most of the multiplications that the mask makes zero.

Logits of colour g read hidden units of groups 0 … g. With the units sorted by group these are the
first few of them, and with K levels of each of D colours a dense product multiplies D·M·K numbers
of which (D − 1)/2D are zero: a third of them for D = 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ALIGNMENT = 32
"""Units that a CPU's products take at a time; a width that is no multiple of it costs more."""


def aligned_ends(units: int, colours: int) -> tuple[int, ...]:
    """For each colour, how many of the sorted units it reads: a few more than have a weight.

    Args:
        units: M; unit c is of group c % D.
        colours: D.
    """
    ends = accumulate(len(range(g, units, colours)) for g in range(colours))
    return tuple(min(units, -(-end // ALIGNMENT) * ALIGNMENT) for end in ends)


class ProductByColour(torch.autograd.Function):
    """``units @ weight[g].T + bias[g]`` for each colour g, where weights from ``ends[g]`` on are 0.

    Every number of the result and of the gradients comes from one product, so that in half
    precision it is rounded once, as in a dense product.
    """

    @staticmethod
    def forward(
        ctx: Any, units: Tensor, weight: Tensor, bias: Tensor, ends: Sequence[int]
    ) -> Tensor:
        """``[P, M]``, ``[D, K, M]``, ``[D, K]`` → ``[P, D, K]``."""
        ctx.save_for_backward(units, weight)
        ctx.ends = ends
        result = units.new_empty(len(units), *bias.shape)
        for g, end in enumerate(ends):
            torch.addmm(bias[g], units[:, :end], weight[g, :, :end].T, out=result[:, g])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """``[P, D, K]`` → gradients of ``[P, M]``, ``[D, K, M]`` and ``[D, K]``."""
        units, weight = ctx.saved_tensors
        gradient = gradients[0]
        starts = (0, *ctx.ends[:-1])
        # Units from starts[g] on are read by the colours from g on alone.
        of_units = [
            gradient[:, g:].flatten(1) @ weight[g:, :, start:end].flatten(0, 1)
            for g, (start, end) in enumerate(zip(starts, ctx.ends, strict=True))
        ]
        of_weight = [
            F.pad(gradient[:, g].T @ units[:, :end], (0, units.shape[1] - end))
            for g, end in enumerate(ctx.ends)
        ]
        return torch.cat(of_units, 1), torch.stack(of_weight), gradient.sum(0), None
