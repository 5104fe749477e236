"""The interface of trainable models."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from prsr.models.load_and_save import HubModel


class TrainedModel(HubModel):
    """A model that ``prsr train`` can train: it maps pairs to a loss and to metrics."""

    @abstractmethod
    def forward(self, lr: Tensor, hr: Tensor) -> Any:
        """The input of :meth:`loss` and :meth:`per_image_metrics`, from ``uint8`` pairs."""

    @abstractmethod
    def loss(self, output: Any, hr: Tensor) -> Tensor:
        """The training loss, a scalar; ``output`` comes from the forward pass."""

    @abstractmethod
    def per_image_metrics(self, output: Any, hr: Tensor) -> dict[str, Tensor]:
        """Validation metrics of each image, ``float32 [N]`` by name."""
