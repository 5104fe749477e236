"""A model with random weights, and the work on it that is timed: no work depends on the weights.

But for one thing: the engine ``cpu`` leaves out hidden units that are zero where it draws a
image alone. :meth:`Subject.share_alive` tells how many are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

import prsr
from prsr import PRSRConfig
from prsr.engines.base import Job
from prsr.engines.cpu import CPUEngine
from prsr.sampling.conditioning import condition
from prsr.testing import cdf_violation, random_images, random_model
from prsr.utils.torch_threads import single_threaded_section

ENGINE = CPUEngine()

EPSILON = 1e-4
"""How far u may lie outside its CDF interval: of SPEC, section 2, for fp32."""


class Subject:
    """A model of some configuration.

    Args:
        config: its numbers.
        enlarge: images are so many times as high and as wide as the configuration says.
    """

    def __init__(self, config: PRSRConfig, enlarge: int = 1) -> None:
        self.config = config
        self.model = random_model(config, gain=1.0)
        self.low_size = enlarge * config.low_height, enlarge * config.low_width

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image."""
        return self.config.scale * self.low_size[0], self.config.scale * self.low_size[1]

    @property
    def pixels(self) -> int:
        """Of an image."""
        return self.size[0] * self.size[1]

    def low_resolution(self, batch: int) -> Tensor:
        """Random images, always the same, ``uint8 [batch, D, h, w]``."""
        return random_images(self.config, batch, *self.low_size)

    @torch.no_grad()
    def job(self, batch: int) -> Job:
        """What an engine is given for such a batch."""
        config = self.config
        return Job(
            *condition(self.model.conditioning, self.low_resolution(batch), config),
            noise=prsr.noise(0, batch, *self.size, config.channels),
            temperature=torch.ones(batch),
            mask=None,
            image=torch.zeros(batch, config.channels, *self.size, dtype=torch.uint8),
        )

    def engine_alone(
        self, batch: int, precision: str = "fp32", rows: int | None = None
    ) -> Callable[[], None]:
        """The engine ``cpu`` on packed weights and conditioning logits: SPEC's bound speaks of it.

        ``rows`` are drawn, or all.
        """
        packed = ENGINE.pack(self.model.prior, precision)
        job = self.job(batch)

        @torch.no_grad()
        def work() -> None:
            with single_threaded_section(batch):  # as the sampler does
                state = ENGINE.start(packed, job)
            ENGINE.rows(state, 0, self.size[0] if rows is None else rows)

        return work

    def whole_call(self, batch: int, engine: str = "cpu") -> Callable[[], Tensor]:
        """``Sampler.sample``: checks, noise and the conditioning network too; with seed 0."""
        sampler = prsr.Sampler(self.model, engine=engine)
        lr = self.low_resolution(batch)
        return lambda: sampler.sample(lr, seed=0)

    def prior_forward(self, batch: int) -> Callable[[], Tensor]:
        """One forward of the prior: the naive sampler does H·W·D of them."""
        shape = (batch, self.config.channels, *self.size)
        hr = torch.randint(self.config.levels, shape, dtype=torch.uint8)
        features = torch.zeros(batch, self.config.gate_inputs, *self.size)
        return torch.no_grad()(lambda: self.model.prior(hr, features))

    def violation(self, hr: Tensor) -> float:
        """The worst of ``prsr.testing.cdf_violation`` over what :meth:`whole_call` has drawn."""
        lr = self.low_resolution(len(hr))
        noise = prsr.noise(0, len(hr), *self.size, self.config.channels)
        return float(cdf_violation(self.model, lr, hr, noise, 1.0).max())

    @torch.no_grad()
    def share_alive(self) -> float:
        """Of the head's hidden units, over a few images, those that are not zero."""
        features = condition(self.model.conditioning, self.low_resolution(2), self.config).features
        _, h = self.model.prior.stacks(self.whole_call(2)(), features)[-1]
        hidden = cast(Tensor, self.model.prior.head[:2](h))
        return float((hidden > 0).float().mean())
