"""The interface of all engines: they draw images row by row from conditioning logits.

The sampler checks everything before it calls an engine, so an engine may rely on shapes, dtypes and
values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.models.networks import PriorNetwork


class Probe(NamedTuple):
    """The input of one block in both stacks, on the last row drawn: ``[N, C, W]`` each."""

    vertical: Tensor
    horizontal: Tensor


@dataclass(frozen=True, eq=False)
class LastLayer:
    """The last layer of the conditioning network, 1×1, to be computed row by row.

    The logits of all pixels would take 4·K·D·H·W bytes per image, those of a row 4·K·D·W.

    Attributes:
        inputs: ``float32 [N, conditioning_channels, H, W]``, with the features of a pixel adjacent.
        weights: in the layout of the engine.
        bias: in the layout of the engine.
    """

    inputs: Tensor
    weights: Tensor
    bias: Tensor


@dataclass
class Job:
    """Images to draw. All tensors are on one device; the engine fills ``image`` row by row.

    Attributes:
        conditioning: logits of the conditioning network, ``float32 [N, K, D, H, W]``; only for an
            engine with :attr:`Engine.computes_last_layer`, also the layer that gives them.
        features: conditioning features for conditional gates, ``float32 [N, F, H, W]``; without
            conditional gates F is 0.
        noise: ``float32 [N, H, W, D]`` in [0, 1).
        temperature: ``float32 [N]``, ≥ 0; 0 is greedy.
        mask: which sub-pixels are known, ``bool [N, D, H, W]``, or None if none is.
        image: ``uint8 [N, D, H, W]``; known sub-pixels have their values from the start.
    """

    conditioning: Tensor | LastLayer
    features: Tensor
    noise: Tensor
    temperature: Tensor
    mask: Tensor | None
    image: Tensor

    @property
    def logits(self) -> Tensor:
        """The logits, for an engine that does not compute the last layer."""
        assert isinstance(self.conditioning, Tensor)
        return self.conditioning


class Engine(ABC):
    """An implementation of sampling from conditioning logits and a prior network."""

    name: ClassVar[str]
    """The value of ``engine=`` that selects it."""

    device_type: ClassVar[str | None] = None
    """The device type that it is optimised for; None for slow engines that run on any device."""

    computes_last_layer: ClassVar[bool] = False
    """Whether a job may have a :class:`LastLayer` in place of logits."""

    calls_prior: ClassVar[bool] = False
    """Whether it calls the prior's modules. Other engines only read their weights."""

    @abstractmethod
    def reasons(self, config: PRSRConfig, device: torch.device, precision: str) -> list[str]:
        """Why the engine cannot be used, one short clause each; empty if it can."""

    @abstractmethod
    def pack(self, prior: PriorNetwork, precision: str) -> Any:
        """A copy of the prior's weights in the memory layout of the engine."""

    def layout(self, precision: str) -> tuple[str, ...]:
        """A key that is different for every memory layout that :meth:`pack` may give weights."""
        return self.name, precision

    def bytes_per_image(
        self, config: PRSRConfig, height: int, width: int, *, last_layer: bool = False
    ) -> int:
        """An estimate of the bytes that one image needs besides its conditioning.

        The sampler limits the size of a slice by it. The default is the estimate for an engine that
        caches the activations which the next row reads.

        Args:
            config: of the model.
            height: H.
            width: W.
            last_layer: whether the job has a :class:`LastLayer` in place of logits.
        """
        # Per layer: p + 1 rows of the vertical stack, its sums (2C wide), and the current row.
        caches = 4 * config.prior_layers * (config.reach + 4) * width * config.prior_channels
        # The engine copies the features to its own layout while the originals are still in memory.
        return caches + 4 * config.gate_inputs * height * width

    def images_at_once(self) -> int:
        """Slices of a multiple of this number of images are the fastest."""
        return 1

    @abstractmethod
    def start(self, packed: Any, job: Job) -> Any:
        """The state of a job of which no row has been drawn."""

    @abstractmethod
    def row(self, state: Any, y: int) -> None:
        """Draw row ``y`` of the job's images; called once per row, in order."""

    def rows(self, state: Any, y: int, end: int) -> None:
        """Draw rows ``y`` … ``end − 1``; Ctrl-C takes effect after each row."""
        for row in range(y, end):
            self.row(state, row)

    @abstractmethod
    def probe(self, state: Any, layer: int) -> Probe:
        """For tests: the input of block ``layer`` (0 … L−1) on the last row drawn."""


def draw(logits: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
    """Invert the CDF: the smallest level v with Σ_{j≤v} p_j > u, p = softmax(logits / temperature).

    Rounding never selects a level without mass: u is scaled by the computed sum of the masses, and
    the result is at most the last level with mass.

    Args:
        logits: ``float32 [N, K]``, finite.
        noise: u, ``float32 [N]`` in [0, 1).
        temperature: ``float32 [N]``; 0 selects the (first) largest logit.

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
