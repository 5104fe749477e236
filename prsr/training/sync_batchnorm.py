"""Batch normalisation by the statistics of the whole batch, wherever its images lie.

The paper trains eight processes on one synchronous batch of 32. Each by itself would normalise by
the mean and variance of four images: another network than the one of 32, and other weights for
every number of processes. ``torch.nn.SyncBatchNorm`` does the same for GPUs alone; this runs on
CPUs too, and is tested there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prsr.utils import distributed


class SynchronousBatchNorm2d(nn.BatchNorm2d):
    """``BatchNorm2d`` over the parts of all processes, which must be equally large."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, C, H, W]``."""
        if not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()  # under autocast x is in half the bits
        mean = distributed.mean(wide.mean((0, 2, 3)))
        centred = wide - mean[:, None, None]
        variance = distributed.mean(centred.square().mean((0, 2, 3)))
        self.remember(
            mean.detach(), variance.detach(), distributed.count() * x.numel() // len(mean)
        )
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def remember(self, mean: Tensor, variance: Tensor, n: int) -> None:
        """Move the running statistics, of which the variance is the unbiased one of n values."""
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_((variance * n / max(1, n - 1)).to(self.running_var), self.momentum)


def synchronise(model: nn.Module) -> None:
    """Put :class:`SynchronousBatchNorm2d` in the place of every ``BatchNorm2d`` of a model."""
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if type(layer) is nn.BatchNorm2d:
                twin = SynchronousBatchNorm2d(layer.num_features, layer.eps, layer.momentum)
                twin.load_state_dict(layer.state_dict())
                setattr(parent, name, twin)
