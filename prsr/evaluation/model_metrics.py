"""A model's own metrics on test images: bits per dimension, or squared error."""

from __future__ import annotations

import torch
from rich.progress import track
from torch import Tensor

from prsr.data.dataset import SuperResolutionImages
from prsr.models.base import TrainedModel
from prsr.models.eval_mode import evaluating

BATCH = 32
"""Images in a forward pass."""


def per_image_metrics(
    model: TrainedModel, images: SuperResolutionImages, *, progress: bool = False
) -> dict[str, Tensor]:
    """The metrics of each image (:meth:`prsr.models.base.TrainedModel.per_image_metrics`).

    Args:
        model: used in evaluation mode, on its device.
        images: one or more.
        progress: whether to show a progress bar.

    Returns:
        ``float32 [N]`` by name, on the CPU.
    """
    device = next(model.parameters()).device
    batches: dict[str, list[Tensor]] = {}
    starts = track(range(0, len(images), BATCH), "evaluating", disable=not progress, transient=True)
    with evaluating(model), torch.no_grad():
        for start in starts:
            lr, hr = (part.to(device) for part in images.batch(slice(start, start + BATCH)))
            for name, values in model.per_image_metrics(model(lr, hr), hr).items():
                batches.setdefault(name, []).append(values.cpu())
    return {name: torch.cat(values) for name, values in batches.items()}


def mean_metrics(model: TrainedModel, images: SuperResolutionImages) -> dict[str, float]:
    """The means over images of :func:`per_image_metrics`."""
    metrics = per_image_metrics(model, images)
    return {name: values.double().mean().item() for name, values in metrics.items()}
