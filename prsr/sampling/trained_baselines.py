"""Sampling from the trained baselines.

Source: Dahl, Norouzi and Shlens (arXiv 1702.00783), section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prsr.engines.base import draw
from prsr.models.baselines import Independent, Regression
from prsr.models.eval_mode import evaluating
from prsr.models.losses import by_sub_pixel
from prsr.sampling.method import Advance, DeterministicMethod, Method
from prsr.sampling.request import Request
from prsr.utils.torch_settings import exact_fp32

SLICE = 2
"""Images that a network computes at a time: few enough for their logits to fit in the cache."""


class IndependentSampler(Method):
    """Draws every sub-pixel independently; at temperature 0 it takes the most likely level.

    Args:
        model: gives the logits.
    """

    def __init__(self, model: Independent) -> None:
        self.model: Independent = model
        self.config = model.config

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    def _draw(self, request: Request, advance: Advance | None) -> Tensor:
        drawn = torch.empty(request.shape, dtype=torch.uint8, device=self.device)
        each = max(1, SLICE * request.samples)
        with exact_fp32(self.device), evaluating(self.model):
            for start in range(0, len(drawn), each):
                part = request.slice(start, start + each)
                source, noise = part.source, part.noise()
                logits = by_sub_pixel(self.model.conditioning(part.lr).float())
                logits = logits.unflatten(0, (len(part.lr), -1))[source].flatten(0, 1)
                temperature = part.temperature[source].repeat_interleave(noise[0].numel())
                levels = draw(logits, noise.flatten(), temperature).view(noise.shape)
                drawn[start : start + each] = levels.permute(0, 3, 1, 2).to(torch.uint8)
                if advance:
                    advance(len(noise) * request.size[0])
        request.fill_known(drawn)
        return drawn


class RegressionMethod(DeterministicMethod):
    """The expected image of L2 regression, rounded to levels.

    Args:
        model: the trained regression model.
    """

    def __init__(self, model: Regression) -> None:
        self.model: Regression = model
        self.config = model.config

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    def enlarge(self, lr: Tensor) -> Tensor:
        """``uint8 [N, D, h, w]`` → ``uint8 [N, D, s·h, s·w]``."""
        top = self.config.levels - 1
        with exact_fp32(self.device), evaluating(self.model):
            values = torch.cat([self.model.expected(part) for part in lr.split(SLICE)])
        return ((values + 0.5) * top).round().clamp(0, top).to(torch.uint8)
