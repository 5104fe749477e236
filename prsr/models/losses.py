"""The training loss and bits per dimension (Dahl et al., equations 5 and 6)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from prsr.models.networks import PRSROutput
from prsr.models.paired_cross_entropy import paired_cross_entropy
from prsr.utils.argument_checks import check_targets


def prsr_loss(output: PRSROutput, hr: Tensor) -> Tensor:
    """CE(A+B, y) + CE(A, y), each the mean over sub-pixels, in nats; a scalar.

    Without the second term the model learns to ignore the conditioning network A. Both terms and
    their gradients are computed in one pass (:mod:`prsr.models.paired_cross_entropy`), in
    ``float32`` or ``float64`` whatever the precision of the logits.

    Args:
        output: of ``model(lr, hr)``, logits ``[N, K, D, H, W]``.
        hr: the images of that call, ``uint8 [N, D, H, W]``, values below K.

    Raises:
        RuntimeError: its gradient is differentiated again (raised by the backward pass). On a GPU
            also if a value of ``hr`` is not below K: values are not read, so that nothing waits for
            the GPU, but a kernel of PyTorch asserts it, and later calls fail.
        TypeError: ``hr`` is not a ``uint8`` tensor.
        ValueError: its shape is not that of the logits, or, on a CPU, a value is not below K.
    """
    check_targets(hr, output.conditioning_logits)
    return paired_cross_entropy(
        by_sub_pixel(output.conditioning_logits), by_sub_pixel(output.prior_logits), targets(hr)
    )


def cross_entropy(logits: Tensor, hr: Tensor) -> Tensor:
    """Mean over sub-pixels, in nats: ``[N, K, D, H, W]``, ``uint8 [N, D, H, W]`` → a scalar."""
    return F.cross_entropy(by_sub_pixel(logits).float(), targets(hr))


def targets(hr: Tensor) -> Tensor:
    """``uint8 [N, D, H, W]`` → ``int64 [N·H·W·D]``, in the order of :func:`by_sub_pixel`."""
    return hr.permute(0, 2, 3, 1).flatten().long()


def by_sub_pixel(logits: Tensor) -> Tensor:
    """``[N, K, D, H, W]`` → ``[N·H·W·D, K]``, a view: logits are in this order in memory."""
    return logits.permute(0, 3, 4, 2, 1).flatten(0, 3)


def per_image_bits(logits: Tensor, hr: Tensor) -> Tensor:
    """−log₂ p(y|x) / (D·H·W) of each image: ``[N, K, D, H, W]``, ``[N, D, H, W]`` → ``[N]``."""
    nats = F.cross_entropy(logits.float(), hr.long(), reduction="none")
    return nats.flatten(1).mean(dim=1) / math.log(2)
