"""The paper's table: every method on the same images, each figure with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.progress import Progress
from torch import Tensor

from prsr.data.dataset import SuperResolutionImages
from prsr.evaluation.likelihood import per_image_metrics
from prsr.evaluation.metrics import (
    Interval,
    confidence,
    diversity,
    mean_squared_error,
    ms_ssim,
    psnr,
    ssim,
    unit,
)
from prsr.sampling.baselines import IndependentSampler
from prsr.sampling.method import DeterministicMethod, Method

CHUNK = 64
"""Images of which all samples are in memory at a time."""


@dataclass(frozen=True)
class Row:
    """What is found of a method at one temperature, or apart from any.

    Attributes:
        method: its label.
        temperature: of its draws; None for a method that draws nothing, and for what does not
            depend on it.
        values: by measure.
    """

    method: str
    temperature: float | None
    values: Mapping[str, Interval]

    @property
    def tau(self) -> float | None:
        """The paper's τ, which multiplies the logits: 1 / temperature; None where that is none."""
        return 1 / self.temperature if self.temperature else None


@dataclass(frozen=True)
class Comparison:
    """The whole of a table.

    Attributes:
        images: measures of what the methods make, a row for each method and temperature.
        likelihood: the figures of what is trained (bits per dimension), a row for each.
        parameters: numbers that each method has learnt.
    """

    images: list[Row]
    likelihood: list[Row]
    parameters: dict[str, int]


def compare(
    methods: Mapping[str, Method],
    images: SuperResolutionImages,
    temperatures: Sequence[float],
    *,
    samples: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Let every method enlarge the inputs of ``images``, and measure.

    Args:
        methods: by label.
        images: at least two.
        temperatures: to draw at; :class:`prsr.sampling.baselines.IndependentSampler` draws at 0 as
            well.
        samples: of each image. A measure of an image is the mean over its samples; with fewer
            than two there is no diversity.
        seed: of the noise.
        progress: to show bars in.

    Raises:
        ValueError: an argument is out of range, or the images are too small to compare.
    """
    rows, likelihood, parameters = [], [], {}
    for label, method in methods.items():
        for temperature in temperatures_of(method, temperatures):
            measured = measure(method, images, temperature, samples, seed, progress, label)
            values = {name: confidence(found) for name, found in measured.items()}
            rows.append(Row(label, temperature, values))
        model = method.model
        parameters[label] = sum(p.numel() for p in model.parameters()) if model else 0
        if model:
            found = per_image_metrics(model, images)
            likelihood.append(
                Row(label, None, {name: confidence(value) for name, value in found.items()})
            )
    return Comparison(rows, likelihood, parameters)


def temperatures_of(method: Method, temperatures: Sequence[float]) -> Sequence[float | None]:
    """The temperatures to draw at with a method."""
    if isinstance(method, DeterministicMethod):
        return [None]
    if isinstance(method, IndependentSampler):
        return list(dict.fromkeys([*temperatures, 0.0]))
    return temperatures


def measure(
    method: Method,
    images: SuperResolutionImages,
    temperature: float | None,
    samples: int,
    seed: int,
    progress: Progress | None = None,
    label: str = "",
) -> dict[str, Tensor]:
    """Each measure of each image, ``float32 [N]``: the mean over its samples.

    pSNR in dB; consistency is the mean squared error between the input and the reduced output.
    """
    found: dict[str, list[Tensor]] = {}
    described = f"{label}{'' if temperature is None else f', temperature {temperature:g}'}"
    task = progress.add_task(described, total=len(images)) if progress else None
    for start in range(0, len(images), CHUNK):
        lr, hr = images.batch(slice(start, start + CHUNK))
        drawn = method.sample(
            lr,
            1.0 if temperature is None else temperature,
            seed=seed,
            num_samples=samples,
            first_index=start,
        )
        for name, values in measures(drawn, lr, hr, images).items():
            found.setdefault(name, []).append(values)
        if progress and task is not None:
            progress.advance(task, len(lr))
    if progress and task is not None:
        progress.remove_task(task)
    return {name: torch.cat(values) for name, values in found.items()}


def measures(
    drawn: Tensor, lr: Tensor, hr: Tensor, images: SuperResolutionImages
) -> dict[str, Tensor]:
    """Measures of samples ``uint8 [n, S, D, H, W]`` of inputs ``lr`` whose truth is ``hr``."""
    levels, samples = images.config.levels, drawn.shape[1]
    every = drawn.flatten(0, 1)
    reduced = torch.from_numpy(images.inputs(every.numpy()))
    shown, truth, wanted, back = (
        unit(values, levels)
        for values in (
            every,
            hr.repeat_interleave(samples, dim=0),
            lr.repeat_interleave(samples, dim=0),
            reduced,
        )
    )
    found = {
        "pSNR": psnr(shown, truth),
        "SSIM": ssim(shown, truth),
        "MS-SSIM": ms_ssim(shown, truth),
        "consistency": mean_squared_error(back, wanted),
    }
    means = {name: values.view(-1, samples).mean(dim=1) for name, values in found.items()}
    if samples > 1:
        means["diversity"] = diversity(unit(drawn, levels))
    return means
