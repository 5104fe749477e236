"""What every engine is: numbers in, rows of an image out. SPEC: one chain of rows an image.

The sampler has checked everything before it calls an engine: an engine may rely on shapes, dtypes
and values, and computes only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.models.networks import PriorNetwork


class Probe(NamedTuple):
    """Both stacks at the input of one block, on the row drawn last: ``[N, C, W]`` each."""

    vertical: Tensor
    horizontal: Tensor


@dataclass
class Job:
    """What is to be drawn. Everything lies on one device; ``image`` fills row by row.

    Attributes:
        conditioning: logits of the conditioning network, ``float32 [N, K, D, H, W]``.
        features: its features, which conditional gates read, ``float32 [N, F, H, W]``; without
            conditional gates F is 0.
        noise: ``float32 [N, H, W, D]`` in [0, 1).
        temperature: ``float32 [N]``, ≥ 0; 0 is greedy.
        mask: which sub-pixels are known, ``bool [N, D, H, W]``, or None if none is.
        image: ``uint8 [N, D, H, W]``; the known sub-pixels are in their places from the start.
    """

    conditioning: Tensor
    features: Tensor
    noise: Tensor
    temperature: Tensor
    mask: Tensor | None
    image: Tensor


class Engine(ABC):
    """One way to draw images from conditioning logits and a prior network."""

    name: ClassVar[str]
    """What ``engine=`` calls it."""

    device_type: ClassVar[str | None] = None
    """The type of the devices that it is made for; None where it takes any, and is slow."""

    @abstractmethod
    def reasons(self, config: PRSRConfig, device: torch.device, precision: str) -> list[str]:
        """Why it cannot serve, one short clause each; empty if it can."""

    @abstractmethod
    def pack(self, prior: PriorNetwork, precision: str) -> Any:
        """A copy of the prior's weights in the engine's own layout."""

    def preparing(self, images: int) -> AbstractContextManager[None]:
        """Entered while torch prepares a job of so many images on the host."""
        return nullcontext()

    @abstractmethod
    def start(self, packed: Any, job: Job) -> Any:
        """A state in which no row is drawn yet."""

    @abstractmethod
    def row(self, state: Any, y: int) -> None:
        """Draw row ``y`` of the job's image; the rows are asked for in order, each once."""

    def rows(self, state: Any, y: int, end: int) -> None:
        """Draw rows ``y`` … ``end − 1``; Ctrl-C is heard after each."""
        for row in range(y, end):
            self.row(state, row)

    @abstractmethod
    def probe(self, state: Any, layer: int) -> Probe:
        """For tests: what block ``layer`` (0 … L−1) reads on the row drawn last."""


def draw(logits: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
    """Invert the CDF: the smallest level v with Σ_{j≤v} p_j > u, p = softmax(logits / temperature).

    Rounding never selects a level that has no mass: u is held against the sum that the
    probabilities really have, and stays below it.

    Args:
        logits: ``float32 [N, K]``, finite.
        noise: u, ``float32 [N]`` in [0, 1).
        temperature: ``float32 [N]``; where it is 0, the (first) largest logit is taken.

    Returns:
        ``int64 [N]``, 0 … K−1.
    """
    below_largest = logits - logits.amax(dim=1, keepdim=True)
    mass = torch.exp(below_largest / temperature[:, None])
    cdf = mass.cumsum(dim=1)
    total = cdf[:, -1:]
    drawn = (cdf <= noise[:, None] * total).sum(dim=1)
    last = (cdf < total).sum(dim=1)
    return torch.where(temperature > 0, torch.minimum(drawn, last), logits.argmax(dim=1))
