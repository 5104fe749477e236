"""The interface of every method that turns low-resolution images into high-resolution ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.models.base import TrainedModel
from prsr.sampling.request import Batch, Request, make_request
from prsr.utils.argument_checks import describe

Advance = Callable[[int], None]
"""Called with the number of rows that have been finished since the last call."""


class Method(ABC):
    """A way to make high-resolution images: a :class:`prsr.Sampler` or a baseline.

    Attributes:
        config: defines the input and output sizes.
        model: the trained model that it samples from, or None.
    """

    config: PRSRConfig
    model: TrainedModel | None = None

    @property
    def device(self) -> torch.device:
        """Where the work is done."""
        return torch.device("cpu")

    def sample(
        self,
        batch: Batch,
        temperature: float | Tensor = 1.0,
        *,
        seed: int | None = None,
        num_samples: int | None = None,
        known: Tensor | None = None,
        mask: Tensor | None = None,
        first_index: int = 0,
        progress: bool | Progress = False,
    ) -> Tensor:
        """High-resolution images; see :func:`prsr.sample`."""
        request, device = self._request(
            batch, temperature, seed, num_samples, known, mask, first_index
        )
        with counting(progress, len(request.wanted) * request.size[0]) as advance:
            images = self._draw(request, advance).to(device)
        return images if num_samples is None else request.grouped(images)

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError if images of H × W pixels are more than the method can make."""
        return

    def _request(self, *arguments: Any) -> tuple[Request, torch.device]:
        """The request, and the device of the batch; see :func:`make_request`."""
        return make_request(self.config, self.device, self.check_size, *arguments)

    @abstractmethod
    def _draw(self, request: Request, advance: Advance | None) -> Tensor:
        """The samples that are wanted, ``uint8 [R, D, H, W]`` on the method's device.

        Args:
            request: what to draw.
            advance: to call as rows are finished; None if progress is not shown.
        """


class DeterministicMethod(Method):
    """A method without noise: every sample of an image is the same."""

    @abstractmethod
    def enlarge(self, lr: Tensor) -> Tensor:
        """``uint8 [N, D, h, w]`` → ``uint8 [N, D, s·h, s·w]``."""

    def _draw(self, request: Request, advance: Advance | None) -> Tensor:
        if not request.wanted:
            return request.lr.new_empty(request.shape)
        images = self.enlarge(request.lr)[request.source]
        request.fill_known(images)
        if advance:
            advance(len(images) * request.size[0])
        return images


@contextmanager
def counting(progress: bool | Progress, total: int) -> Iterator[Advance | None]:
    """A function that shows how many of ``total`` rows are finished, as ``progress`` says."""
    if not isinstance(progress, (bool, Progress)):
        raise TypeError(
            f"progress must be a bool or a rich.progress.Progress, got {describe(progress)}"
        )
    if progress is False:
        yield None
        return
    with Progress(transient=True) if progress is True else nullcontext(progress) as bar:
        task = bar.add_task("sampling", total=total)
        try:
            yield lambda rows: bar.advance(task, rows)
        finally:
            bar.remove_task(task)
