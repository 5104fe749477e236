"""What every trainable model provides."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from prsr.models.hub import HubModel


class TrainedModel(HubModel):
    """What ``prsr train`` can train: a way from pairs to a loss, and to figures for reports."""

    @abstractmethod
    def forward(self, lr: Tensor, hr: Tensor) -> Any:
        """What :meth:`loss` and :meth:`figures` read, from ``uint8`` pairs as in training."""

    @abstractmethod
    def loss(self, output: Any, hr: Tensor) -> Tensor:
        """What training minimises, a scalar; ``output`` is that of the forward pass."""

    @abstractmethod
    def figures(self, output: Any, hr: Tensor) -> dict[str, Tensor]:
        """What reports show of each image, ``float32 [N]`` by name."""
