"""Trained baselines: each network of the model alone, and L2 regression.

Source: Dahl, Norouzi and Shlens (arXiv 1702.00783), section 4. The networks are those of the model,
at the same sizes, so that models of one configuration differ in their objective alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prsr.config import PRSRConfig
from prsr.models.base import TrainedModel
from prsr.models.losses import cross_entropy, per_image_bits
from prsr.models.networks import (
    ConditioningNetwork,
    PriorNetwork,
    initialise_weights,
    to_network_input,
)
from prsr.utils.argument_checks import (
    check_pair,
)


class OneNetwork(TrainedModel):
    """One of the model's two networks alone; its output is the logits ``[N, K, D, H, W]``."""

    def loss(self, output: Tensor, hr: Tensor) -> Tensor:
        """Cross-entropy, the mean over sub-pixels, in nats."""
        return cross_entropy(output, hr)

    def per_image_metrics(self, output: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Bits per dimension."""
        return {"bits/dim": per_image_bits(output, hr)}


class Independent(OneNetwork):
    """Pixel-independent cross-entropy: the conditioning network alone."""

    method = "independent"

    def __init__(self, config: PRSRConfig) -> None:
        super().__init__(config)
        self.conditioning = ConditioningNetwork(config)
        initialise_weights(self)

    def forward(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Logits ``[N, K, D, H, W]``; only the shape of ``hr`` is used."""
        check_pair(lr, hr, self.config, self.device)
        return self.conditioning(lr)


class Regression(TrainedModel):
    """L2 regression: the conditioning network's trunk with a linear output."""

    method = "l2"

    def __init__(self, config: PRSRConfig) -> None:
        super().__init__(config)
        self.network = ConditioningNetwork(config)
        self.network[-1] = nn.Conv2d(config.conditioning_channels, config.channels, 1)
        initialise_weights(self)

    def forward(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Expected images ``[N, D, H, W]``, value/(K−1) − 0.5; only the shape of ``hr`` is used."""
        check_pair(lr, hr, self.config, self.device)
        return self.expected(lr)

    def expected(self, lr: Tensor) -> Tensor:
        """``uint8 [N, D, h, w]`` → ``[N, D, s·h, s·w]``, value/(K−1) − 0.5."""
        return self.network[-1](self.network.features(lr))

    def loss(self, output: Tensor, hr: Tensor) -> Tensor:
        """Mean squared error, where black is 0 and white is 1."""
        return F.mse_loss(output.float(), to_network_input(hr, self.config.levels))

    def per_image_metrics(self, output: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """The mean squared error."""
        errors = output.float() - to_network_input(hr, self.config.levels)
        return {"mean squared error": errors.square().flatten(1).mean(dim=1)}


class Unconditional(OneNetwork):
    """The prior network alone, which ignores the input."""

    method = "unconditional"

    def __init__(self, config: PRSRConfig) -> None:
        if config.conditional_gates:
            raise ValueError(
                f"conditional_gates must be false for the method {self.method}, which has no "
                "conditioning network"
            )
        super().__init__(config)
        self.conditioning = NoConditioning(config)
        self.prior = PriorNetwork(config)
        initialise_weights(self)

    def forward(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Logits ``[N, K, D, H, W]`` of ``hr``; only the shape of ``lr`` is used."""
        check_pair(lr, hr, self.config, self.device)
        return self.prior(hr)


class NoConditioning(nn.Module):
    """Replaces a conditioning network: zero logits for any input."""

    def __init__(self, config: PRSRConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, lr: Tensor) -> Tensor:
        """``uint8 [N, D, h, w]`` → zeros ``[N, K, D, s·h, s·w]``."""
        config, (height, width) = self.config, lr.shape[2:]
        size = (config.scale * height, config.scale * width, config.channels, config.levels)
        return torch.zeros(len(lr), *size, device=lr.device).permute(0, 4, 3, 1, 2)
