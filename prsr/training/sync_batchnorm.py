"""Batch normalisation with the statistics of the whole batch when processes share it.

The paper trains eight processes on one synchronous batch of 32. If each process normalised with the
mean and variance of its own four images, the network would differ from that of a batch of 32, and
the weights would depend on the number of processes. On CUDA, ``torch.nn.SyncBatchNorm`` does this.
It does not support the CPU, where :class:`SynchronousBatchNorm2d` takes its place.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prsr.utils import distributed


class SynchronousBatchNorm2d(nn.BatchNorm2d):
    """``BatchNorm2d`` over the batches of all processes, which must have equal sizes."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, C, H, W]``."""
        if not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()  # x is bfloat16 under autocast
        own_mean = wide.mean((0, 2, 3))
        centred = wide - own_mean[:, None, None]
        own_variance = centred.square().mean((0, 2, 3))
        # One exchange for both, because its latency exceeds the time of the arithmetic.
        means, variances = distributed.stack(torch.stack((own_mean, own_variance))).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        values = distributed.count() * x.numel() // len(mean)
        self.update_running_statistics(mean.detach(), variance.detach(), values)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias + (own_mean - mean) * scale
        return (centred * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    def update_running_statistics(self, mean: Tensor, variance: Tensor, n: int) -> None:
        """Update the running mean, and the running variance with the unbiased one of n values."""
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_((variance * n / max(1, n - 1)).to(self.running_var), self.momentum)


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Replace every ``BatchNorm2d`` inside a model by a layer that spans all processes.

    Args:
        model: not itself a ``BatchNorm2d``; the new layers keep its parameters and buffers.
        device: that it will be trained on.
    """
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if type(layer) is nn.BatchNorm2d:
                synchronous = SynchronousBatchNorm2d(layer.num_features, layer.eps, layer.momentum)
                synchronous.load_state_dict(layer.state_dict())
                setattr(parent, name, synchronous)
