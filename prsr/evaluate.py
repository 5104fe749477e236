"""How many bits a model needs for pictures that it has not seen."""

from __future__ import annotations

import torch
from rich.progress import track

from prsr.data import SuperResolutionPictures
from prsr.evaluating import evaluating
from prsr.loss import picture_bits
from prsr.model import PRSR

BATCH = 32


def evaluate(
    model: PRSR, pictures: SuperResolutionPictures, *, progress: bool = False
) -> dict[str, float]:
    """Mean bits per dimension under the whole model and under its conditioning network alone.

    Args:
        model: used in evaluation mode, where it lies.
        pictures: at least one.
        progress: show a bar.
    """
    device = next(model.parameters()).device
    totals = {"bits/dim": 0.0, "bits/dim, conditioning alone": 0.0}
    starts = track(
        range(0, len(pictures), BATCH), "evaluating", disable=not progress, transient=True
    )
    with evaluating(model), torch.no_grad():
        for start in starts:
            lr, hr = (part.to(device) for part in pictures.batch(slice(start, start + BATCH)))
            output = model(lr, hr)
            for name, logits in zip(
                totals, (output.logits, output.conditioning_logits), strict=True
            ):
                totals[name] += picture_bits(logits, hr).sum().item()
    return {name: total / len(pictures) for name, total in totals.items()}
