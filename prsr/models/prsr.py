"""The model: conditioning network plus prior network.

Source: Dahl, Norouzi and Shlens (arXiv 1702.00783), section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.models.base import TrainedModel
from prsr.models.eval_mode import evaluating
from prsr.models.losses import per_image_bits, prsr_loss
from prsr.models.networks import (
    ConditioningNetwork,
    PriorNetwork,
    PRSROutput,
    initialise_weights,
)
from prsr.utils.argument_checks import check_levels, check_pair


class PRSR(TrainedModel):
    """The whole model: conditioning network plus prior network.

    Args:
        config: its sizes. Weights start as truncated normal (σ 0.1), biases as zero.

    Raises:
        TypeError: ``config`` is not a :class:`prsr.PRSRConfig`.
    """

    def __init__(self, config: PRSRConfig) -> None:
        super().__init__(config)
        self.conditioning = ConditioningNetwork(config)
        self.prior = PriorNetwork(config)
        initialise_weights(self)

    def forward(self, lr: Tensor, hr: Tensor) -> PRSROutput:
        """Logits of every sub-pixel of ``hr``, given ``lr`` and the sub-pixels before it.

        Args:
            lr: ``uint8 [N, D, h, w]``, values below K.
            hr: ``uint8 [N, D, s·h, s·w]``, values below K.

        Raises:
            TypeError: an image is not ``uint8``.
            ValueError: the shapes do not fit each other or the configuration.
        """
        check_pair(lr, hr, self.config, self.device)
        if self.config.conditional_gates:
            a, features = self.conditioning(lr, with_features=True)
            b = self.prior(hr, features)
        else:
            a = self.conditioning(lr)
            b = self.prior(hr)
        return PRSROutput(a + b, a, b)

    def loss(self, output: PRSROutput, hr: Tensor) -> Tensor:
        """:func:`prsr.prsr_loss`."""
        return prsr_loss(output, hr)

    def per_image_metrics(self, output: PRSROutput, hr: Tensor) -> dict[str, Tensor]:
        """Bits per dimension of the whole model and of each network alone."""
        return {
            "bits/dim": per_image_bits(output.logits, hr),
            "bits/dim, conditioning alone": per_image_bits(output.conditioning_logits, hr),
            "bits/dim, prior alone": per_image_bits(output.prior_logits, hr),
        }


def bits_per_dim(model: PRSR, lr: Tensor, hr: Tensor) -> Tensor:
    """Bits per sub-pixel of each image under the model, ``float32 [N]``.

    The model is used in evaluation mode, whatever mode it is in, and without gradients.

    Args:
        model: any :class:`prsr.PRSR`.
        lr: ``uint8 [N, D, h, w]``, values below K.
        hr: ``uint8 [N, D, H, W]``, values below K.

    Raises:
        TypeError: an image is not ``uint8``.
        ValueError: the shapes do not fit each other or the configuration, or a value is too large.
    """
    check_pair(lr, hr, model.config, model.device)
    check_levels(lr, "lr", model.config)
    check_levels(hr, "hr", model.config)
    with evaluating(model), torch.no_grad():
        return per_image_bits(model(lr, hr).logits, hr)
