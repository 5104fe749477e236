"""Contact sheets of what a model makes: input, bicubic, samples and, where it is known, truth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from prsr import processes
from prsr.baselines import Method
from prsr.config import PRSRConfig
from prsr.images import contact_sheet, to_picture

Comparison = tuple[Tensor, Tensor, Tensor | None]
"""Input ``uint8 [D, h, w]``, samples ``[S, D, H, W]`` and truth ``[D, H, W]``, if it is known."""


def comparison_sheet(comparisons: Sequence[Comparison], config: PRSRConfig) -> Image.Image:
    """One row a picture: input, bicubic enlargement, its samples and, where known, the truth.

    Args:
        comparisons: at least one, all with as many samples.
        config: of the model.
    """
    headings = ["input", "bicubic"]
    headings += [f"sample {s + 1}" for s in range(len(comparisons[0][1]))]
    if any(truth is not None for _, _, truth in comparisons):
        headings.append("truth")
    rows = []
    for lr, samples, truth in comparisons:
        picture = to_picture(lr.cpu().numpy(), config)
        size = (picture.width * config.scale, picture.height * config.scale)
        drawn = [to_picture(sample, config) for sample in samples.cpu().numpy()]
        rows.append([picture, picture.resize(size, Image.Resampling.BICUBIC), *drawn])
        if truth is not None:
            rows[-1].append(to_picture(truth.cpu().numpy(), config))
    return contact_sheet(rows, headings)


def sample_sheet(
    sampler: Method,
    lr: Tensor,
    hr: Tensor | None,
    *,
    num_samples: int = 4,
    temperature: float = 1.0,
    seed: int = 0,
    progress: bool = False,
    shared: bool = False,
) -> Image.Image:
    """Sample every input and lay the samples beside it, and beside the truth where it is known.

    Args:
        sampler: what enlarges the inputs.
        lr: ``uint8 [N, D, h, w]``, N ≥ 1.
        hr: the truth, ``uint8 [N, D, H, W]``, or None.
        num_samples: of each input.
        temperature: of all samples.
        seed: of the noise.
        progress: show a bar.
        shared: the processes of :mod:`prsr.processes` sample a part each: all must call it.
    """
    part = processes.share(len(lr)) if shared else range(len(lr))
    samples = sampler.sample(
        lr[part.start : part.stop],
        temperature,
        seed=seed,
        num_samples=num_samples,
        first_index=part.start,
        progress=progress,
    )
    if shared:
        samples = torch.cat(processes.gathered(samples))
    truths = [None] * len(lr) if hr is None else hr
    return comparison_sheet(list(zip(lr, samples, truths, strict=True)), sampler.config)
