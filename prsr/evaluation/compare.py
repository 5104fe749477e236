"""The paper's comparison table: every method on the same images, each metric with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.progress import Progress
from torch import Tensor

from prsr.data.dataset import SuperResolutionImages
from prsr.evaluation.metrics import (
    Interval,
    confidence_interval,
    diversity,
    mean_squared_error,
    ms_ssim,
    psnr,
    ssim,
    to_unit_range,
)
from prsr.evaluation.model_metrics import per_image_metrics
from prsr.sampling.method import DeterministicMethod, Method
from prsr.sampling.trained_baselines import IndependentSampler

CHUNK = 64
"""Images whose samples are in memory at the same time."""


Keep = Callable[[str, float | None, int, Tensor], None]
"""Called with label, temperature, index of the first input and samples ``[n, S, D, H, W]``."""


@dataclass(frozen=True)
class ComparisonRow:
    """The metrics of one method, at one temperature where they depend on it.

    Attributes:
        method: label of the method.
        temperature: sampling temperature; None for deterministic methods and for likelihoods.
        values: mean and interval by metric.
    """

    method: str
    temperature: float | None
    values: Mapping[str, Interval]

    @property
    def tau(self) -> float | None:
        """The paper's τ, 1 / temperature, which multiplies the logits; None for 0 and None."""
        return 1 / self.temperature if self.temperature else None


@dataclass(frozen=True)
class ComparisonTable:
    """The result of :func:`compare`.

    Attributes:
        images: image metrics, a row for each method and temperature.
        likelihood: the models' own metrics (bits per dimension or squared error), a row for each
            trained method.
        parameters: number of trained parameters of each method.
    """

    images: list[ComparisonRow]
    likelihood: list[ComparisonRow]
    parameters: dict[str, int]


def compare(
    methods: Mapping[str, Method],
    images: SuperResolutionImages,
    temperatures: Sequence[float],
    *,
    samples: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> ComparisonTable:
    """Sample the inputs of ``images`` with every method and compute the metrics.

    Args:
        methods: by label.
        images: two or more.
        temperatures: sampling temperatures;
            :class:`prsr.sampling.trained_baselines.IndependentSampler` is also sampled at 0.
        samples: number of samples per image. An image's metric is the mean over its samples;
            diversity needs two or more.
        seed: seed of the noise.
        progress: display in which to show progress bars.
        keep: called with all samples, some inputs at a time.

    Raises:
        ValueError: an argument is out of range, two temperatures have the same label, or the images
            are too small for a metric.
    """
    check_labels(methods, temperatures)
    rows, likelihood, parameters = [], [], {}
    for label, method in methods.items():
        for temperature in method_temperatures(method, temperatures):
            metrics = evaluate_method(
                method, images, temperature, samples, seed, progress, label, keep
            )
            rows.append(ComparisonRow(label, temperature, with_intervals(metrics)))
        model = method.model
        parameters[label] = sum(p.numel() for p in model.parameters()) if model else 0
        if model:
            metrics = per_image_metrics(model, images)
            likelihood.append(ComparisonRow(label, None, with_intervals(metrics)))
    return ComparisonTable(rows, likelihood, parameters)


def method_temperatures(method: Method, temperatures: Sequence[float]) -> Sequence[float | None]:
    """The different temperatures to sample a method at; ``[None]`` if it is deterministic."""
    if isinstance(method, DeterministicMethod):
        return [None]
    if isinstance(method, IndependentSampler):
        temperatures = [*temperatures, 0.0]
    return list(dict.fromkeys(temperatures))


def check_labels(methods: Mapping[str, Method], temperatures: Sequence[float]) -> None:
    """Check that each method and temperature has a label, and so a folder of images, of its own.

    Raises:
        ValueError: two temperatures, or two methods, have the same label.
    """
    for label, method in methods.items():
        seen: dict[str, float | None] = {}
        for temperature in method_temperatures(method, temperatures):
            described = describe_method(label, temperature)
            if described in seen:
                raise ValueError(
                    f"temperatures must differ in their first six digits, got {seen[described]!r} "
                    f"and {temperature!r}"
                )
            seen[described] = temperature
    folders = {label.replace("/", "-") for label in methods}
    if len(folders) < len(methods):
        raise ValueError(f"names of methods must differ, got {', '.join(methods)}")


def with_intervals(metrics: Mapping[str, Tensor]) -> dict[str, Interval]:
    """Mean and confidence interval of each metric, from its values ``[N]`` of each image."""
    return {name: confidence_interval(values) for name, values in metrics.items()}


def evaluate_method(
    method: Method,
    images: SuperResolutionImages,
    temperature: float | None,
    samples: int,
    seed: int,
    progress: Progress | None = None,
    label: str = "",
    keep: Keep | None = None,
) -> dict[str, Tensor]:
    """The metrics of a method: ``float32 [N]`` by name, the mean over the samples of each image.

    Args:
        method: samples the inputs of ``images``.
        images: inputs and truth.
        temperature: sampling temperature; None for a deterministic method.
        samples: number of samples per image.
        seed: seed of the noise.
        progress: display in which to show a progress bar.
        label: label of the method, for the progress bar.
        keep: called with all samples, some inputs at a time.

    Returns:
        pSNR in dB; SSIM; MS-SSIM; consistency, the mean squared error between the input and the
        reduced sample; diversity, if there are two or more samples per image.
    """
    chunks: dict[str, list[Tensor]] = {}
    description = describe_method(label, temperature)
    task = progress.add_task(description, total=len(images)) if progress else None
    for start in range(0, len(images), CHUNK):
        lr, hr = images.batch(slice(start, start + CHUNK))
        sampled = method.sample(
            lr,
            1.0 if temperature is None else temperature,
            seed=seed,
            num_samples=samples,
            first_index=start,
        )
        if keep:
            keep(label, temperature, start, sampled)
        for name, values in sample_metrics(sampled, lr, hr, images).items():
            chunks.setdefault(name, []).append(values)
        if progress and task is not None:
            progress.advance(task, len(lr))
    if progress and task is not None:
        progress.remove_task(task)
    return {name: torch.cat(values) for name, values in chunks.items()}


def describe_method(label: str, temperature: float | None) -> str:
    """A method and its temperature as text."""
    return label if temperature is None else f"{label}, temperature {temperature:g}"


def sample_metrics(
    samples: Tensor, lr: Tensor, hr: Tensor, images: SuperResolutionImages
) -> dict[str, Tensor]:
    """The metrics of samples: ``float32 [N]`` by name, the mean over the samples of each image.

    Args:
        samples: ``uint8 [N, S, D, H, W]``.
        lr: their inputs, ``uint8 [N, D, h, w]``.
        hr: the truth, ``uint8 [N, D, H, W]``.
        images: the data set, which defines how images are reduced.
    """
    levels, per_image = images.config.levels, samples.shape[1]
    flat = samples.flatten(0, 1)
    reduced = torch.from_numpy(images.inputs(flat.numpy()))
    output, truth, reduced_output, lr_input = (
        to_unit_range(values, levels)
        for values in (
            flat,
            hr.repeat_interleave(per_image, dim=0),
            reduced,
            lr.repeat_interleave(per_image, dim=0),
        )
    )
    metrics = {
        "pSNR": psnr(output, truth),
        "SSIM": ssim(output, truth),
        "MS-SSIM": ms_ssim(output, truth),
        "consistency": mean_squared_error(reduced_output, lr_input),
    }
    means = {name: values.view(-1, per_image).mean(dim=1) for name, values in metrics.items()}
    if per_image > 1:
        means["diversity"] = diversity(to_unit_range(samples, levels))
    return means
