"""Training batches: read step by step, or gathered from a data set that resides on the GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from prsr.data.dataset import SuperResolutionImages

MEMORY_SHARE = 0.25
"""The share of a GPU's free memory that a training set may take."""

READ_IMAGES = 4096
"""Number of images that are read and reduced at a time."""


def batches_of(
    images: SuperResolutionImages, order: Iterable[list[int]], device: torch.device
) -> Iterable[tuple[Tensor, Tensor]]:
    """Batches of lr ``uint8 [n, D, h, w]`` and hr ``uint8 [n, D, s·h, s·w]``.

    Reducing each batch on the CPU would stall a GPU, so that the whole set is stored on the GPU if
    it fits.

    Args:
        images: the data set.
        order: indices of each batch.
        device: to train on.
    """
    if device.type == "cuda" and fits_on_gpu(images, torch.cuda.mem_get_info(device)[0]):
        return ResidentBatches(images, order, device)
    return DataLoader(images, batch_sampler=order)


def fits_on_gpu(images: SuperResolutionImages, free: int) -> bool:
    """Whether a data set and its inputs take at most ``MEMORY_SHARE`` of the free bytes."""
    lr, hr = images.batch([0])
    return len(images) * (lr.numel() + hr.numel()) <= MEMORY_SHARE * free


class ResidentBatches:
    """A data set stored on a device with its inputs; batches are gathered there.

    Args:
        images: the data set; its inputs must be deterministic.
        order: indices of each batch.
        device: to store it on.
    """

    def __init__(
        self, images: SuperResolutionImages, order: Iterable[list[int]], device: torch.device
    ) -> None:
        self.order, self.device = order, device
        starts = range(0, len(images), READ_IMAGES)
        parts = [images.batch(slice(start, start + READ_IMAGES)) for start in starts]
        self.lr, self.hr = (torch.cat(part).to(device) for part in zip(*parts, strict=True))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.order:
            indices = torch.tensor(batch)
            if self.device.type == "cuda":  # pinned memory is copied asynchronously
                indices = indices.pin_memory()
            indices = indices.to(self.device, non_blocking=True)
            yield self.lr[indices], self.hr[indices]
