"""Both cross-entropies of the loss and their gradients, in one pass over the logits.

Computed one after the other, they read and write ``float32`` copies of ``[N, K, D, H, W]`` a dozen
times, which makes a training step memory-bound. Here a few hundred sub-pixels at a time are
finished while they are in the cache, gradients included. Gradients have the precision of the
logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CACHE_BYTES = 2**19
"""Size of the ``float32`` logits that a CPU thread processes at a time: a part of its cache."""

DEVICE_BYTES = 2**28
"""The same for other devices, where launch overhead matters rather than the cache."""


def paired_cross_entropy(conditioning: Tensor, prior: Tensor, target: Tensor) -> Tensor:
    """CE(A + B, y) + CE(A, y), each the mean over sub-pixels, in nats; a scalar.

    It is computed in ``float32`` (``float64`` if a network's logits are), whatever the precision of
    the logits. Its gradient cannot be differentiated again.

    Args:
        conditioning: A, logits ``[R, K]``.
        prior: B, logits ``[R, K]``.
        target: y, ``int64 [R]``.
    """
    # A compiler fuses the formula by itself. Gradients in fp16 must be scaled before they are
    # rounded, which only the formula allows: its gradients are computed in the backward pass.
    if torch.compiler.is_compiling() or torch.float16 in (conditioning.dtype, prior.dtype):
        return formula(conditioning, prior, target)
    loss: Tensor = PairedCrossEntropy.apply(conditioning, prior, target)
    return loss


def formula(conditioning: Tensor, prior: Tensor, target: Tensor) -> Tensor:
    """What :func:`paired_cross_entropy` computes, in terms of PyTorch's own cross-entropy."""
    dtype = wide(conditioning, prior)
    alone = conditioning.to(dtype)
    # Summed in this precision: in half precision the sum would be rounded first.
    return F.cross_entropy(alone + prior.to(dtype), target) + F.cross_entropy(alone, target)


def wide(*logits: Tensor) -> torch.dtype:
    """The dtype to compute in: ``float64`` if any of the logits have it, else ``float32``."""
    return torch.float64 if torch.float64 in {each.dtype for each in logits} else torch.float32


class PairedCrossEntropy(torch.autograd.Function):
    """:func:`formula`, with gradients computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, conditioning: Tensor, prior: Tensor, target: Tensor) -> Tensor:
        """``[R, K]``, ``[R, K]``, ``int64 [R]`` → a scalar."""
        dtype = wide(conditioning, prior)
        wanted = any(ctx.needs_input_grad)
        gradients = [torch.empty_like(each) if wanted else each for each in (conditioning, prior)]
        total = torch.zeros((), dtype=dtype, device=conditioning.device)
        rows = rows_at_a_time(conditioning)
        parts = (each.split(rows) for each in (conditioning, prior, target, *gradients))
        for a, b, y, a_gradient, b_gradient in zip(*parts, strict=True):
            y = y[:, None]
            alone = a.to(dtype)
            both = alone + b
            softmaxes = []
            for logits in (both, alone):
                probabilities = torch.softmax(logits, dim=1)
                # log Σ exp is the largest logit minus the log of its probability, at least 1/K.
                log_sums = logits.amax(1) - probabilities.amax(1).log()
                total += (log_sums - logits.gather(1, y)[:, 0]).sum()
                softmaxes.append(probabilities)
            if wanted:
                minus_one = torch.full_like(y, -1, dtype=dtype)
                for probabilities in softmaxes:
                    probabilities.scatter_add_(1, y, minus_one).div_(len(target))
                of_both, of_alone = softmaxes
                b_gradient.copy_(of_both)
                a_gradient.copy_(of_alone.add_(of_both))
        if wanted:
            ctx.save_for_backward(*gradients)
        return total / len(target)

    @staticmethod
    def backward(ctx: Any, *scales: Tensor) -> tuple[Tensor, Tensor, None]:
        """A scalar → ``[R, K]``, ``[R, K]``."""
        # Autograd would treat the gradients computed in the forward pass as constants.
        if torch.is_grad_enabled():
            raise RuntimeError("the gradient of prsr_loss cannot be differentiated (create_graph)")
        (scale,) = scales
        of_conditioning, of_prior = ctx.saved_tensors
        return of_conditioning * scale, of_prior * scale, None


def rows_at_a_time(logits: Tensor) -> int:
    """Number of sub-pixels to process at a time, given logits ``[R, K]``."""
    on_cpu = logits.device.type == "cpu"
    total = CACHE_BYTES * torch.get_num_threads() if on_cpu else DEVICE_BYTES
    return max(1, total // (4 * logits.shape[1]))
