"""The engine ``reference``: the whole prior, forward, for every sub-pixel.

Nothing of the prior is cached; the conditioning logits are computed once. Its results define
correctness for faster engines, and its speed is that of the naive sampler: H·W·D forward passes of
the prior per image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from typing_extensions import override

from prsr.config import PRSRConfig
from prsr.engines.base import Engine, Job, Probe, draw
from prsr.engines.effective_weights import whole_copy
from prsr.models.networks import PriorNetwork


@dataclass
class State:
    """A job, the prior that draws it and the last row drawn."""

    prior: PriorNetwork
    job: Job
    y: int = -1


class ReferenceEngine(Engine):
    """Runs the whole prior network for each sub-pixel, on any device, in float32."""

    name = "reference"
    calls_prior = True

    @override
    def reasons(self, config: PRSRConfig, device: torch.device, precision: str) -> list[str]:
        return [] if precision == "fp32" else [f"it computes in fp32 only, not in {precision}"]

    @override
    def pack(self, prior: PriorNetwork, precision: str) -> PriorNetwork:
        return whole_copy(prior)

    @override
    def start(self, packed: PriorNetwork, job: Job) -> State:
        return State(packed, job)

    @override
    def row(self, state: State, y: int) -> None:
        job, image = state.job, state.job.image
        _, channels, _, width = image.shape
        for x in range(width):
            for colour in range(channels):
                logits = (job.logits + state.prior(image, job.features))[:, :, colour, y, x]
                value = draw(logits, job.noise[:, y, x, colour], job.temperature).to(torch.uint8)
                place = image[:, colour, y, x]
                if job.mask is not None:
                    value = torch.where(job.mask[:, colour, y, x], place, value)
                place.copy_(value)
        state.y = y

    @override
    def probe(self, state: State, layer: int) -> Probe:
        vertical, horizontal = state.prior.stacks(state.job.image, state.job.features)[layer]
        return Probe(vertical[:, :, state.y], horizontal[:, :, state.y])
