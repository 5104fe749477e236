"""Batches on the way to a device: read from a set step by step, or kept on a GPU as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from prsr.data.dataset import SuperResolutionImages

MEMORY_SHARE = 0.25
"""Of a GPU's free memory, what a training set may take."""

READ = 4096
"""Images that are read and reduced at a time."""


def batches_of(
    images: SuperResolutionImages, order: Iterable[list[int]], device: torch.device
) -> Iterable[tuple[Tensor, Tensor]]:
    """Pairs lr ``uint8 [n, D, h, w]`` and hr ``uint8 [n, D, s·h, s·w]``, batch after batch.

    A GPU would wait for a processor to reduce each batch anew: where it has the memory, it keeps
    the whole set.

    Args:
        images: to take from.
        order: indices of each batch.
        device: to train on.
    """
    if device.type == "cuda" and fits(images, torch.cuda.mem_get_info(device)[0]):
        return ResidentBatches(images, order, device)
    return DataLoader(images, batch_sampler=order)


def fits(images: SuperResolutionImages, free: int) -> bool:
    """Whether a set, with its inputs, takes a small enough part of so many free bytes."""
    lr, hr = images.batch([0])
    return len(images) * (lr.numel() + hr.numel()) <= MEMORY_SHARE * free


class ResidentBatches:
    """A whole set on a device, inputs included, and batches gathered there.

    Args:
        images: to take from; their inputs must be the same at every reading.
        order: indices of each batch.
        device: to keep them on.
    """

    def __init__(
        self, images: SuperResolutionImages, order: Iterable[list[int]], device: torch.device
    ) -> None:
        self.order, self.device = order, device
        starts = range(0, len(images), READ)
        parts = [images.batch(slice(start, start + READ)) for start in starts]
        self.lr, self.hr = (torch.cat(part).to(device) for part in zip(*parts, strict=True))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.order:
            indices = torch.tensor(batch)
            if self.device.type == "cuda":  # pinned, so that it is copied while the GPU computes
                indices = indices.pin_memory()
            indices = indices.to(self.device, non_blocking=True)
            yield self.lr[indices], self.hr[indices]
