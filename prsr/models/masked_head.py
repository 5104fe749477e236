"""The prior's last layer on a CPU, without most of the multiplications that the mask makes zero.

Logits of colour g depend on hidden units of groups 0 … g, a prefix of the units sorted by group.
Of the D·M·K multiplications of a dense GEMM, (D − 1)/2D have a zero weight: a third for D = 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ALIGNMENT = 32
"""Units are taken in multiples of this: CPU GEMMs are slower on other widths."""


def aligned_ends(units: int, colours: int) -> tuple[int, ...]:
    """For each colour, the length of the prefix of sorted units that it reads, rounded up.

    Args:
        units: M; unit c belongs to group c % D.
        colours: D.
    """
    ends = accumulate(len(range(g, units, colours)) for g in range(colours))
    return tuple(min(units, -(-end // ALIGNMENT) * ALIGNMENT) for end in ends)


class HeadByColour(torch.autograd.Function):
    """``units @ weight[g].T + bias[g]`` for each colour g, where weights from ``ends[g]`` on are 0.

    Each element of the result and of the gradients comes from one GEMM, so that half precision
    rounds it once, as a dense GEMM does.
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
        # Units from starts[g] on are read only by colours from g on.
        of_units = [
            gradient[:, g:].flatten(1) @ weight[g:, :, start:end].flatten(0, 1)
            for g, (start, end) in enumerate(zip(starts, ctx.ends, strict=True))
        ]
        of_weight = [
            F.pad(gradient[:, g].T @ units[:, :end], (0, units.shape[1] - end))
            for g, end in enumerate(ctx.ends)
        ]
        return torch.cat(of_units, 1), torch.stack(of_weight), gradient.sum(0), None
