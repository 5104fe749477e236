"""Runs of the sampling page: models that are served, and samples that grow row by row."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.data.image_arrays import reduce
from prsr.engines.registry import PRECISIONS, list_engines
from prsr.models.model_files import bundled_inputs, bundled_models
from prsr.models.prsr import PRSR
from prsr.sampling.interpolation import Bicubic
from prsr.sampling.sampler import Sampler
from prsr.sampling.trained_baselines import RegressionMethod
from prsr.web.run_settings import RunSettings

UNDRAWN = 0.5
"""The grey of what is not drawn yet; white is 1."""


@dataclass(frozen=True)
class Progress:
    """A run after a row.

    Attributes:
        rows: that are drawn; 0 before the first.
        samples: ``uint8 [S, D, H, W]``, grey where nothing is drawn yet.
        seconds: spent on sampling so far.
        drawn: sub-pixels that were drawn so far, those that are kept not counted.
    """

    rows: int
    samples: Tensor
    seconds: float
    drawn: int


class Models:
    """The models that are served.

    Args:
        models: by name; all on one device.
        l2: an L2 baseline to show beside samples of models for the same images.
    """

    def __init__(self, models: Mapping[str, PRSR], l2: RegressionMethod | None = None) -> None:
        self.models, self.l2 = dict(models), l2
        self.configs: dict[str, PRSRConfig] = {name: m.config for name, m in models.items()}
        self.sampler = lru_cache(maxsize=8)(self._sampler)

    def _sampler(self, model: str, engine: str, precision: str) -> Sampler:
        return Sampler(self.models[model], engine=engine, precision=precision)

    def engines(self, model: str) -> list[str]:
        """Engines that can serve a model here at any precision, "auto" first."""
        config, device = self.configs[model], self.models[model].device
        able = {
            name: None
            for precision in PRECISIONS
            for name, reasons in list_engines(config, device, precision).items()
            if not reasons
        }
        return ["auto", *able]

    def examples(self, model: str) -> Tensor:
        """Bundled inputs of a model, ``uint8 [N, D, h, w]``; N is 0 where it is not bundled."""
        config = self.configs[model]
        if model in bundled_models():
            return bundled_inputs(model)
        return torch.empty(0, config.channels, config.low_height, config.low_width).byte()

    def low(self, settings: RunSettings) -> Tensor:
        """The input of a run, ``uint8 [1, D, h, w]``.

        Raises:
            ValueError: there is no such example.
        """
        if settings.image is not None:
            return torch.from_numpy(reduce(settings.image[None], self.configs[settings.model]))
        examples = self.examples(settings.model)
        number = settings.example or 0
        if not 0 <= number < len(examples):
            raise ValueError(f"example must be below {len(examples)}, got {number}")
        return examples[number : number + 1]

    def baselines(self, settings: RunSettings) -> list[tuple[str, Tensor]]:
        """What the baselines make of the input, ``uint8 [D, H, W]``, by name."""
        config, low = self.configs[settings.model], self.low(settings)
        found = [("bicubic", Bicubic(config).enlarge(low)[0])]
        if self.l2 is not None and self.l2.config.image_format == config.image_format:
            found.append(("L2 regression", self.l2.sample(low)[0]))
        return found

    def run(self, settings: RunSettings) -> Iterator[Progress]:
        """Sample row by row; closing the iterator ends the work.

        Raises:
            ValueError: the engine cannot be used, or the settings are not valid.
        """
        sampler = self.sampler(settings.model, settings.engine, settings.precision)
        config, low = sampler.config, self.low(settings)
        height, width = (config.scale * size for size in low.shape[2:])
        shape = (settings.samples, config.channels, height, width)
        shown = torch.full(shape, round(UNDRAWN * (config.levels - 1)), dtype=torch.uint8)
        known = mask = None
        free = np.ones((height, width), bool)
        kept = settings.kept()
        if kept is not None and settings.image is not None:
            known = torch.from_numpy(np.array(settings.image))[None]
            mask = torch.from_numpy(kept)[None, None]
            shown = torch.where(mask[0], known[0], shown)
            free = ~kept
        yield Progress(0, shown, 0.0, 0)
        start = time.perf_counter()
        rows = sampler.rows(
            low,
            settings.temperature,
            seed=settings.seed,
            num_samples=settings.samples,
            known=known,
            mask=mask,
        )
        seconds = time.perf_counter() - start
        for end in range(1, height + 1):
            start = time.perf_counter()
            part = next(rows)
            seconds += time.perf_counter() - start  # not what the page does between rows
            shown = shown.clone()
            shown[:, :, :end] = part[0]
            drawn = settings.samples * config.channels * int(free[:end].sum())
            yield Progress(end, shown, seconds, drawn)
