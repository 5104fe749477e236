"""What training minimises and what evaluation reports (SPEC of the model: Dahl et al., eq. 5-6)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from prsr.checks import check_levels, check_targets
from prsr.evaluating import evaluating

if TYPE_CHECKING:
    from prsr.model import PRSR, PRSROutput


def prsr_loss(output: PRSROutput, hr: Tensor) -> Tensor:
    """CE(A+B, y) + CE(A, y), each the mean over sub-pixels, in nats; a scalar.

    Without the second term the model learns to ignore the conditioning network A.

    Args:
        output: of ``model(lr, hr)``, logits ``[N, K, D, H, W]``.
        hr: the pictures it was given, ``uint8 [N, D, H, W]``.

    Raises:
        TypeError: ``hr`` is not a ``uint8`` tensor.
        ValueError: its shape is not that of the logits.
    """
    check_targets(hr, output.conditioning_logits)
    # Added up anew: in half precision, the sum of the two would be rounded before it is used.
    conditioning = output.conditioning_logits.float()
    whole = conditioning + output.prior_logits.float()
    return cross_entropy(whole, hr) + cross_entropy(conditioning, hr)


def cross_entropy(logits: Tensor, hr: Tensor) -> Tensor:
    """Mean over sub-pixels, in nats: ``[N, K, D, H, W]``, ``uint8 [N, D, H, W]`` → a scalar."""
    target = hr.permute(0, 2, 3, 1).flatten().long()
    return F.cross_entropy(by_sub_pixel(logits).float(), target)


def by_sub_pixel(logits: Tensor) -> Tensor:
    """``[N, K, D, H, W]`` → ``[N·H·W·D, K]``: no copy, for so they lie in memory."""
    return logits.permute(0, 3, 4, 2, 1).flatten(0, 3)


def picture_bits(logits: Tensor, hr: Tensor) -> Tensor:
    """−log₂ p(y|x) over D·H·W for each picture: ``[N, K, D, H, W]``, ``[N, D, H, W]`` → ``[N]``."""
    nats = F.cross_entropy(logits.float(), hr.long(), reduction="none")
    return nats.flatten(1).mean(dim=1) / math.log(2)


def bits_per_dim(model: PRSR, lr: Tensor, hr: Tensor) -> Tensor:
    """Bits that the model needs for a sub-pixel of each picture, ``float32 [N]``.

    Batch normalisation uses its running statistics, whatever mode the model is in, and no
    gradient is kept.

    Args:
        model: any :class:`prsr.PRSR`.
        lr: ``uint8 [N, D, h, w]``.
        hr: ``uint8 [N, D, H, W]``, values below K.

    Raises:
        TypeError: a picture is not ``uint8``.
        ValueError: the shapes do not fit each other or the configuration, or a value is too large.
    """
    check_levels(hr, "hr", model.config)
    with evaluating(model), torch.no_grad():
        return picture_bits(model(lr, hr).logits, hr)
