"""What a model's own figures are on images that it has not seen: bits per dimension or error."""

from __future__ import annotations

import torch
from rich.progress import track
from torch import Tensor

from prsr.data.dataset import SuperResolutionImages
from prsr.models.base import TrainedModel
from prsr.models.eval_mode import evaluating

BATCH = 32


def figures(
    model: TrainedModel, images: SuperResolutionImages, *, progress: bool = False
) -> dict[str, Tensor]:
    """The model's figures (:meth:`prsr.models.base.TrainedModel.figures`) of each image.

    Args:
        model: used in evaluation mode, where it lies.
        images: at least one.
        progress: show a bar.

    Returns:
        ``float32 [N]`` by name, on the CPU.
    """
    device = next(model.parameters()).device
    found: dict[str, list[Tensor]] = {}
    starts = track(range(0, len(images), BATCH), "evaluating", disable=not progress, transient=True)
    with evaluating(model), torch.no_grad():
        for start in starts:
            lr, hr = (part.to(device) for part in images.batch(slice(start, start + BATCH)))
            for name, values in model.figures(model(lr, hr), hr).items():
                found.setdefault(name, []).append(values.cpu())
    return {name: torch.cat(values) for name, values in found.items()}


def evaluate(model: TrainedModel, images: SuperResolutionImages) -> dict[str, float]:
    """The means of :func:`figures`."""
    return {name: values.double().mean().item() for name, values in figures(model, images).items()}
