"""What training minimises and what evaluation reports (SPEC of the model: Dahl et al., eq. 5-6)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from prsr.evaluating import evaluating

if TYPE_CHECKING:
    from prsr.model import PRSR, PRSROutput


def prsr_loss(output: PRSROutput, hr: Tensor) -> Tensor:
    """CE(A+B, y) + CE(A, y), each the mean over sub-pixels, in nats; a scalar.

    Without the second term the model learns to ignore the conditioning network A.

    Args:
        output: of ``model(lr, hr)``, logits ``[N, K, D, H, W]``.
        hr: the pictures it was given, ``uint8 [N, D, H, W]``.
    """
    target = hr.long()
    return F.cross_entropy(output.logits, target) + F.cross_entropy(
        output.conditioning_logits, target
    )


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
        hr: ``uint8 [N, D, H, W]``.
    """
    with evaluating(model), torch.no_grad():
        return picture_bits(model(lr, hr).logits, hr)
