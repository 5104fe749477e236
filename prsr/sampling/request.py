"""A checked call of a sampling method: what to sample, and with which noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.data.image_arrays import to_array
from prsr.sampling.noise import image_noise
from prsr.utils.argument_checks import (
    check_fits,
    check_images,
    check_known,
    check_levels,
    check_sample_numbers,
    check_temperature,
    check_values,
)
from prsr.utils.torch_settings import own_defaults

Batch = Tensor | NDArray[np.uint8] | Image.Image | Sequence[Image.Image]


@dataclass(frozen=True)
class Request:
    """S samples of each of N images; sample number r is sample r % S of image r // S.

    All tensors are copies on the device of the model.

    Attributes:
        lr: ``uint8 [N, D, h, w]``.
        size: H and W, height and width of the samples in pixels.
        samples: S.
        wanted: the numbers r of the samples to draw; R of them.
        temperature: ``float32 [N]``.
        known: ``uint8 [N, D, H, W]``, or None if no sub-pixel is known.
        mask: which sub-pixels are known, ``bool [N, D, H, W]``, or None.
        seed: of the noise.
        first_index: index of the first image in the noise.
    """

    lr: Tensor
    size: tuple[int, int]
    samples: int
    wanted: range
    temperature: Tensor
    known: Tensor | None
    mask: Tensor | None
    seed: int
    first_index: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``[R, D, H, W]``, the shape of all samples."""
        return (len(self.wanted), self.lr.shape[1], *self.size)

    @property
    def source(self) -> Tensor:
        """The image that each sample is of, ``int64 [R]``."""
        return self._numbers() // self.samples

    def _numbers(self) -> Tensor:
        return torch.arange(self.wanted.start, self.wanted.stop, device=self.lr.device)

    def noise(self) -> Tensor:
        """What the samples are drawn with, ``float32 [R, H, W, D]`` in [0, 1)."""
        return image_noise(
            self.seed,
            self.first_index + self.source,
            self._numbers() % self.samples,
            *self.size,
            self.lr.shape[1],
        )

    def fill_known(self, images: Tensor) -> None:
        """Put the known sub-pixels into samples ``uint8 [R, D, H, W]``."""
        if self.known is not None and self.mask is not None:
            source = self.source
            images.copy_(torch.where(self.mask[source], self.known[source], images))

    def grouped(self, images: Tensor) -> Tensor:
        """All samples ``[N·S, …]`` by image, ``[N, S, …]``."""
        return images.view(len(self.lr), self.samples, *images.shape[1:])

    def slice(self, start: int, stop: int) -> Request:
        """The samples from place ``start`` up to before ``stop``, with the images they are of.

        Args:
            start: place in :attr:`wanted`.
            stop: place in :attr:`wanted`, greater than ``start``; may be beyond the end.
        """
        wanted = self.wanted[start:stop]
        first, last = wanted.start // self.samples, (wanted.stop - 1) // self.samples + 1
        before = first * self.samples
        return replace(
            self,
            lr=self.lr[first:last],
            wanted=range(wanted.start - before, wanted.stop - before),
            temperature=self.temperature[first:last],
            known=None if self.known is None else self.known[first:last],
            mask=None if self.mask is None else self.mask[first:last],
            first_index=self.first_index + first,
        )


@own_defaults()
def make_request(
    config: PRSRConfig,
    device: torch.device,
    check_size: Callable[[int, int], None],
    batch: Batch,
    temperature: float | Tensor,
    seed: int | None,
    num_samples: int | None,
    known: Tensor | None,
    mask: Tensor | None,
    first_index: int,
) -> tuple[Request, torch.device]:
    """Check the arguments of :func:`prsr.sample`, and copy them to the device of the model.

    Args:
        config: of the model.
        device: of the model.
        check_size: is called with H and W, and raises ValueError if such images are too large.
        batch: ``uint8 [N, D, h, w]``, or Pillow images.
        temperature: a number, or one for each image, ``[N]``.
        seed: of the noise, or None.
        num_samples: samples per image, or None.
        known: ``uint8 [N, D, H, W]``, or None.
        mask: ``bool``, broadcastable to ``[N, D, H, W]``, or None.
        first_index: index of the first image in the noise.

    Returns:
        The request, and the device of ``batch``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has the wrong shape or value.
    """
    lr = as_tensor(batch, config)
    check_images(lr, "batch", config)
    check_values(lr, "batch")
    size = config.scale * lr.shape[2], config.scale * lr.shape[3]
    check_size(*size)
    check_levels(lr, "batch", config)
    seed, samples, first_index = check_sample_numbers(seed, num_samples, first_index, len(lr))
    what = "the samples of this batch" if num_samples is None else f"num_samples={samples}: samples"
    check_fits(len(lr) * samples * lr.shape[1] * size[0] * size[1], what, device)
    known, mask = check_known(known, mask, (*lr.shape[:2], *size), config)
    temperatures = check_temperature(temperature, len(lr))
    request = Request(
        lr=lr.to(device, copy=True),
        size=size,
        samples=samples,
        wanted=range(len(lr) * samples),
        temperature=temperatures.detach().to(device, copy=True),
        known=None if known is None else known.to(device, copy=True),
        mask=None if mask is None else mask.to(device, copy=True),
        seed=seed,
        first_index=first_index,
    )
    return request, lr.device


def as_tensor(batch: Batch, config: PRSRConfig) -> Tensor:
    """A batch in any of the accepted forms as a tensor ``[N, D, h, w]``; not yet checked.

    Raises:
        TypeError: it is in none of these forms.
        ValueError: Pillow images differ in size.
    """
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, np.ndarray):
        if batch.dtype != np.uint8:
            raise TypeError(f"batch must be uint8, got {batch.dtype}")
        return torch.from_numpy(batch.copy())  # it may be read-only, or have negative strides
    images = [batch] if isinstance(batch, Image.Image) else batch
    images = list(images) if isinstance(images, Sequence) else []
    if not images or not all(isinstance(image, Image.Image) for image in images):
        raise TypeError(
            "batch must be a uint8 tensor or array [N, D, h, w] or Pillow images, "
            f"got {type(batch).__name__}"
        )
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        raise ValueError(f"the images of a batch must have one size, got {sorted(sizes)}")
    return torch.from_numpy(np.stack([to_array(image, config) for image in images]))
