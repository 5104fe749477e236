"""A model and the timed work on it.

The time does not depend on the weights, with one exception: the engine ``cpu`` skips hidden units
that are zero in all images that a thread draws together. :meth:`Subject.nonzero` is the share of
units that are not zero. It is half with random weights, and a few percent in trained models.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

import prsr
from benchmarks.bounds import Part, count_work
from prsr import PRSR, PRSRConfig
from prsr.engines.base import Job
from prsr.engines.cpu import CPUEngine
from prsr.engines.grouped_weights import pack_prior
from prsr.models.model_files import bundled_inputs
from prsr.sampling.conditioning import Conditioner
from prsr.testing import cdf_violation, random_images, random_model

ENGINE = CPUEngine()

EPSILON = 1e-4
"""How far u may lie outside its CDF interval in fp32; SPEC, section 2."""


class Subject:
    """A model with random weights, and its timed work.

    Args:
        config: of the model.
        enlarge: factor on the height and width of the configuration's images.
    """

    def __init__(self, config: PRSRConfig, enlarge: int = 1) -> None:
        self.config = config
        self.model = random_model(config, gain=1.0)
        self.inputs: Tensor | None = None
        self.low_size = enlarge * config.low_height, enlarge * config.low_width

    @classmethod
    def bundled(cls, name: str) -> Subject:
        """A bundled model with the inputs that are bundled with it, repeated for large batches."""
        model = PRSR.from_pretrained(name).eval()
        subject = cls(model.config)
        subject.model, subject.inputs = model, bundled_inputs(name)
        return subject

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a high-resolution image in pixels."""
        return self.config.scale * self.low_size[0], self.config.scale * self.low_size[1]

    @property
    def pixels(self) -> int:
        """The number of pixels of an image."""
        return self.size[0] * self.size[1]

    @cached_property
    def parts(self) -> dict[str, Part]:
        """The work of the prior for a pixel."""
        return count_work(pack_prior(self.model.prior))

    @cached_property
    def needed(self) -> dict[str, Part]:
        """The same without weights that are multiplied by hidden units that are zero."""
        return count_work(pack_prior(self.model.prior), self.nonzero())

    def low_resolution(self, batch: int) -> Tensor:
        """The inputs, or random images with a fixed seed, ``uint8 [batch, D, h, w]``."""
        if self.inputs is not None:
            return self.inputs[torch.arange(batch) % len(self.inputs)]
        return random_images(self.config, batch, *self.low_size)

    def conditioner(self, *, last_layer: bool = False) -> Conditioner:
        """The model's conditioning network, with its last layer in place of logits if asked for."""
        network, cpu = self.model.conditioning, torch.device("cpu")
        return Conditioner(network, self.config, cpu, last_layer=last_layer)

    @torch.no_grad()
    def job(self, batch: int) -> Job:
        """The input of an engine for a batch."""
        config = self.config
        return Job(
            *self.conditioner()(self.low_resolution(batch)),
            noise=prsr.noise(0, batch, *self.size, config.channels),
            temperature=torch.ones(batch),
            mask=None,
            image=torch.zeros(batch, config.channels, *self.size, dtype=torch.uint8),
        )

    def engine_alone(
        self, batch: int, precision: str = "fp32", rows: int | None = None
    ) -> Callable[[], None]:
        """The engine ``cpu`` alone, given packed weights and conditioning logits; SPEC bounds this.

        Args:
            batch: number of images.
            precision: of the engine.
            rows: number of rows to sample; None is all.
        """
        packed = ENGINE.pack(self.model.prior, precision)
        job = self.job(batch)

        @torch.no_grad()
        def work() -> None:
            state = ENGINE.start(packed, job)
            ENGINE.rows(state, 0, self.size[0] if rows is None else rows)

        return work

    def whole_call(self, batch: int, engine: str = "cpu") -> Callable[[], Tensor]:
        """A call of ``Sampler.sample`` with seed 0, including checks, noise and conditioning."""
        sampler = prsr.Sampler(self.model, engine=engine)
        lr = self.low_resolution(batch)
        return lambda: sampler.sample(lr, seed=0)

    def prior_forward(self, batch: int) -> Callable[[], Tensor]:
        """One forward pass of the prior; the naive sampler needs H·W·D of them."""
        shape = (batch, self.config.channels, *self.size)
        hr = torch.randint(self.config.levels, shape, dtype=torch.uint8)
        features = torch.zeros(batch, self.config.gate_inputs, *self.size)
        return torch.no_grad()(lambda: self.model.prior(hr, features))

    def violation(self, hr: Tensor) -> float:
        """The largest ``prsr.testing.cdf_violation`` of images from :meth:`whole_call`."""
        lr = self.low_resolution(len(hr))
        noise = prsr.noise(0, len(hr), *self.size, self.config.channels)
        return float(cdf_violation(self.model, lr, hr, noise, 1.0).max())

    @torch.no_grad()
    def nonzero(self, together: int = 1) -> float:
        """The share of the head's hidden units that are not zero in any of some images.

        A unit counts as many times as there are colours whose logits depend on it.

        Args:
            together: number of images.
        """
        images = 12 // together * together or together
        features = self.conditioner()(self.low_resolution(images)).features
        _, h = self.model.prior.stacks(self.whole_call(images)(), features)[-1]
        hidden = cast(Tensor, self.model.prior.head[:2](h)) > 0
        share = hidden.unflatten(0, (-1, together)).any(1).float().mean((0, 2, 3))
        groups = torch.arange(len(share)) % self.config.channels
        colours = self.config.channels - groups.sort().values  # head[:2] sorts its units by group
        return float((share * colours).sum() / colours.sum())
