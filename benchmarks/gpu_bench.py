"""A model on a device and inputs for it, shared by the parts of ``python -m benchmarks.gpu``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import prsr
from benchmarks.report import Report
from prsr.engines.base import Job
from prsr.sampling.conditioning import Conditioner
from prsr.testing import random_images, random_model


@dataclass
class Bench:
    """A model with random weights on a device; its images depend on both of its networks.

    Attributes:
        config: of the model.
        device: of the model.
        quick: measure fewer rounds.
        report: collects the results.
        model: in evaluation mode.
        low: height and width of the low-resolution images in pixels.
        size: height and width of the high-resolution images in pixels.
    """

    config: prsr.PRSRConfig
    device: torch.device
    quick: bool
    report: Report

    def __post_init__(self) -> None:
        self.model = random_model(self.config, gain=1.0).to(self.device)
        # Triton's interpreter takes about a second per pixel.
        self.low = (1, 1) if self.dry_run else (self.config.low_height, self.config.low_width)
        self.size = self.config.scale * self.low[0], self.config.scale * self.low[1]

    @property
    def dry_run(self) -> bool:
        """Whether this is a dry run on a CPU, in Triton's interpreter."""
        return self.device.type == "cpu"

    @property
    def dry(self) -> str:
        """What the titles of tables end with."""
        return ", dry run on a CPU" if self.dry_run else ""

    def release_memory(self) -> None:
        """Return the memory that PyTorch keeps to the GPU."""
        if not self.dry_run:
            torch.cuda.empty_cache()

    def images(self, batch: int) -> Tensor:
        """Random images ``uint8 [batch, D, h, w]``; image i is the same in every batch."""
        return random_images(self.config, batch, *self.low).to(self.device)

    def noise(self, batch: int) -> Tensor:
        """The noise of seed 0, computed on the CPU, ``float32 [batch, H, W, D]``."""
        return prsr.noise(0, batch, *self.size, self.config.channels).to(self.device)

    @torch.no_grad()
    def job(self, batch: int) -> Job:
        """The input of an engine."""
        shape = (batch, self.config.channels, *self.size)
        return Job(
            *Conditioner(self.model.conditioning, self.config, self.device)(self.images(batch)),
            noise=self.noise(batch),
            temperature=torch.ones(batch, device=self.device),
            mask=None,
            image=torch.zeros(shape, dtype=torch.uint8, device=self.device),
        )
