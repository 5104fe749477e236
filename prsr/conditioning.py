"""Conditioning logits that do not depend on what else is in the batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prsr.checks import check_finite
from prsr.config import PRSRConfig
from prsr.evaluating import evaluating
from prsr.threads import side_by_side


def conditioning_logits(network: nn.Module, lr: Tensor, config: PRSRConfig) -> Tensor:
    """What the conditioning network, in evaluation mode, says of each picture.

    On a CPU they pass through it one by one, each with one thread: how a convolution is summed, and
    so its last bits, depends on the size of a batch and on the threads that share it. On a GPU,
    which wants many at a time, they pass together, and the bits may differ from batch to batch.

    Args:
        network: maps ``uint8 [N, D, h, w]`` to logits ``[N, K, D, H, W]``.
        lr: ``uint8 [N, D, h, w]``, N ≥ 1, where the network lies.
        config: of the model.

    Returns:
        ``float32 [N, K, D, H, W]``; on a CPU the levels are side by side in memory.

    Raises:
        ValueError: the logits are of another shape, or not finite.
    """
    height, width = (config.scale * size for size in lr.shape[2:])

    def of(pictures: Tensor) -> Tensor:
        logits: Tensor = network(pictures).float()
        expected = (len(pictures), config.levels, config.channels, height, width)
        if tuple(logits.shape) != expected:
            raise ValueError(
                f"the conditioning network's logits must be {list(expected)}, "
                f"they are {list(logits.shape)}"
            )
        check_finite(logits, "the conditioning network's logits")
        return logits

    with evaluating(network):
        if lr.device.type != "cpu":
            return of(lr)
        shape = (len(lr), height, width, config.channels, config.levels)
        logits = torch.empty(shape, dtype=torch.float32, device=lr.device).permute(0, 4, 3, 1, 2)

        @torch.no_grad()
        def one(i: int) -> Tensor:
            own = of(lr[i : i + 1])
            return own if len(lr) == 1 else logits[i].copy_(own[0])

        parts = side_by_side(one, len(lr))
        return parts[0] if len(lr) == 1 else logits
