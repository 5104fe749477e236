"""The networks: p(y|x) = Π softmax(A_i(x) + B_i(y_<i)), A the conditioning and B the prior network.

Source: Dahl, Norouzi and Shlens (arXiv 1702.00783), section 3; the prior is the gated PixelCNN of
van den Oord et al. (arXiv 1606.05328). Images are ``uint8``; the networks read value/(K−1) − 0.5.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from torch import Tensor, nn

from prsr.config import PRSRConfig
from prsr.models.layers import (
    ConditionalGates,
    GatedBlock,
    HiddenUnits,
    Logits,
    MaskedLogits,
    RowConvolution,
    RowsAboveConvolution,
    colour_groups,
)

INIT_STD = 0.1


def to_network_input(images: Tensor, levels: int) -> Tensor:
    """``uint8`` values 0 … K−1 as input of the networks: float32, value/(K−1) − 0.5."""
    return images.float() / (levels - 1) - 0.5


def initialise_weights(module: nn.Module) -> None:
    """Truncated normal weights (σ 0.1) and zero biases, as in the public re-implementations.

    Conditional gates, which those lack, stay at zero.
    """
    for layer in module.modules():
        if isinstance(layer, ConditionalGates):
            continue
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.trunc_normal_(layer.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
            nn.init.zeros_(cast(Tensor, layer.bias))


class ResNetBlock(nn.Sequential):
    """3×3 convolution, BN, ReLU, 3×3 convolution, BN, and the identity skip."""

    def __init__(self, features: int) -> None:
        super().__init__(
            nn.Conv2d(features, features, 3, padding=1),
            nn.BatchNorm2d(features),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1),
            nn.BatchNorm2d(features),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, C, H, W]``."""
        return x + cast(Tensor, super().forward(x))


class ConditioningNetwork(nn.Sequential):
    """A: low-resolution images to logits of every sub-pixel; fully convolutional."""

    def __init__(self, config: PRSRConfig) -> None:
        self.config = config
        features = config.conditioning_channels
        blocks = config.conditioning_blocks
        layers: list[nn.Module] = [nn.Conv2d(config.channels, features, 1)]
        for _ in range(config.doublings):
            layers += [ResNetBlock(features) for _ in range(blocks)]
            layers += [
                nn.ConvTranspose2d(features, features, 3, stride=2, padding=1, output_padding=1),
                nn.ReLU(),
            ]
        layers += [ResNetBlock(features) for _ in range(blocks)]
        super().__init__(*layers, Logits(config))

    def features(self, lr: Tensor) -> Tensor:
        """All but the last convolution: ``uint8 [N, D, h, w]`` → ``[N, C, s·h, s·w]``."""
        weight = cast(nn.Conv2d, self[0]).weight
        x = to_network_input(lr, self.config.levels).to(weight.dtype)
        for layer in list(self)[:-1]:
            x = layer(x)
        return x

    def forward(self, lr: Tensor, *, with_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """``uint8 [N, D, h, w]`` → logits ``[N, K, D, s·h, s·w]``.

        Args:
            lr: the low-resolution images.
            with_features: also return the features ``[N, C, s·h, s·w]``, the input of conditional
                gates.
        """
        features = self.features(lr)
        logits = self[-1](features)
        return (logits, features) if with_features else logits


class PriorNetwork(nn.Module):
    """B: a gated PixelCNN; logits of a sub-pixel from the sub-pixels before it in raster order."""

    def __init__(self, config: PRSRConfig) -> None:
        super().__init__()
        self.config = config
        features, channels = config.prior_channels, config.channels
        colours = colour_groups(channels, channels)
        own = colour_groups(features, channels)
        self.first_vertical = RowsAboveConvolution(channels, features, config.first_kernel)
        self.first_horizontal = RowConvolution(colours, own, config.first_reach, strict=True)
        self.blocks = nn.ModuleList(GatedBlock(config) for _ in range(config.prior_layers))
        self.head = nn.Sequential(
            HiddenUnits(config),
            nn.ReLU(),
            MaskedLogits(config),
        )

    def stacks(self, hr: Tensor, features: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """Both stacks at the input of every block and after the last: L + 1 pairs.

        Args:
            hr: ``uint8 [N, D, H, W]``.
            features: of the conditioning network, ``[N, F, H, W]``; ignored without conditional
                gates.

        Returns:
            ``(vertical, horizontal)``, each ``[N, C, H, W]``.
        """
        x = to_network_input(hr, self.config.levels).to(self.first_vertical.weight.dtype)
        stacks = [(self.first_vertical(x), self.first_horizontal(x))]
        for block in self.blocks:
            stacks.append(block(*stacks[-1], features))
        return stacks

    def forward(self, hr: Tensor, features: Tensor | None = None) -> Tensor:
        """``uint8 [N, D, H, W]`` → logits ``[N, K, D, H, W]``.

        Args:
            hr: the high-resolution images.
            features: of the conditioning network, ``[N, F, H, W]``; read by conditional gates.

        Raises:
            TypeError: the model has conditional gates and ``features`` is None.
        """
        if features is None and self.config.conditional_gates:
            raise TypeError(
                "features must be a tensor for a prior with conditional gates, got None"
            )
        _, h = self.stacks(hr, features)[-1]
        return self.head(h)


class PRSROutput(NamedTuple):
    """Logits of a forward pass, each ``[N, K, D, H, W]``; ``logits`` is the sum of the others."""

    logits: Tensor
    conditioning_logits: Tensor
    prior_logits: Tensor
