"""The public call: pictures in, pictures out. Everything about sampling that is not arithmetic.

Checks, default model and engine, slicing of large batches, noise, the loop over rows, progress,
interruption and streaming stand here, once; an engine (:mod:`prsr.engines`) only computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress
from torch import Tensor

from prsr.checkpoint import DEFAULT_MODEL
from prsr.checks import (
    check_draws,
    check_finite,
    check_fits,
    check_known,
    check_levels,
    check_model,
    check_pictures,
    check_temperature,
    check_values,
)
from prsr.conditioning import Conditioning, condition
from prsr.config import PRSRConfig
from prsr.engines import Engine, Job, choose
from prsr.exact import exact_fp32, own_defaults
from prsr.images import to_array
from prsr.model import PRSR
from prsr.philox import picture_noise
from prsr.slices import conditioning_bytes, per_slice
from prsr.threads import considerate

Batch = Tensor | NDArray[np.uint8] | Image.Image | Sequence[Image.Image]


@dataclass(frozen=True)
class Request:
    """A checked call: N·S draws, S of each picture; draw d is sample d % S of picture d // S.

    Attributes:
        lr: ``uint8 [N, D, h, w]`` on the model's device.
        samples: S.
        temperature: ``float32 [N]``.
        known: ``uint8 [N, D, H, W]``, and where to heed it, ``bool`` likewise; or both None.
        seed: of the noise.
        first_index: the first picture's index in the noise.
    """

    lr: Tensor
    samples: int
    temperature: Tensor
    known: Tensor | None
    mask: Tensor | None
    seed: int
    first_index: int

    @property
    def draws(self) -> int:
        """N·S."""
        return len(self.lr) * self.samples


class Sampler:
    """A model made ready for drawing: its weights are packed once and packed anew if they change.

    Args:
        model: a :class:`prsr.PRSR`, or any module with ``config``, ``prior`` and a ``conditioning``
            that maps ``uint8 [N, D, h, w]`` to logits ``[N, K, D, H, W]`` (on a CPU it is called
            with single pictures, maybe by several threads); with conditional gates it is called
            with ``with_features=True`` and returns features ``[N, F, H, W]`` as well. None is the
            bundled model.
        engine: one of :func:`prsr.engines`, or "auto" for the best that can serve.
        precision: "fp32", "fp16" or "bf16".

    Raises:
        TypeError: ``model`` is no such module.
        ValueError: no such engine or precision, or it cannot serve: with every reason.
    """

    def __init__(
        self, model: PRSR | None = None, *, engine: str = "auto", precision: str = "fp32"
    ) -> None:
        model = default_model() if model is None else model
        check_model(model)
        self.model = model
        self.config: PRSRConfig = model.config
        self.precision = precision
        self._engine_name = engine
        choose(engine, self.config, self.device, precision)
        self._ready: tuple[Engine, dict[str, Tensor], Any] | None = None

    @property
    def device(self) -> torch.device:
        """Where the model lies, and so where the work is done."""
        return next(self.model.prior.parameters()).device

    @property
    def engine(self) -> str:
        """Name of the engine that serves."""
        return choose(self._engine_name, self.config, self.device, self.precision).name

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
        """Draw high-resolution pictures; see :func:`prsr.sample`."""
        request, device = self._request(
            batch, temperature, seed, num_samples, known, mask, first_index
        )
        pictures, shaped = self._canvas(request, num_samples)
        height, width = pictures.shape[2:]
        size = per_slice(self.config, height, width, self.device)
        step = 1 if progress else height  # threads meet after each step
        with counting(progress, request.draws * height) as advance:
            for start in range(0, request.draws, size):
                part = pictures[start : start + size]
                for _ in self._rows(request, start, part, step):
                    advance(len(part) * step)
        return shaped.to(device)

    def rows(
        self,
        batch: Batch,
        temperature: float | Tensor = 1.0,
        *,
        seed: int | None = None,
        num_samples: int | None = None,
        known: Tensor | None = None,
        mask: Tensor | None = None,
        first_index: int = 0,
    ) -> Iterator[Tensor]:
        """Draw like :meth:`sample`, handing out the pictures as they grow.

        The batch is drawn as one slice, so its conditioning logits (4·K·D·H·W bytes a picture)
        must fit in memory. The arguments are checked at once, not at the first row.

        Returns:
            An iterator over y = 0 … H−1 of the rows so far, a new ``uint8 [N, D, y + 1, W]``, or
            ``[N, num_samples, D, y + 1, W]``.
        """
        request, device = self._request(
            batch, temperature, seed, num_samples, known, mask, first_index
        )
        pictures, shaped = self._canvas(request, num_samples)
        return (
            shaped[..., :end, :].to(device, copy=True)
            for end in self._rows(request, 0, pictures, 1)
        )

    def _canvas(self, request: Request, num_samples: int | None) -> tuple[Tensor, Tensor]:
        """Empty pictures, one for each draw, and the same memory in the shape the caller gets."""
        height, width = (self.config.scale * size for size in request.lr.shape[2:])
        shape = (request.draws, self.config.channels, height, width)
        with torch.inference_mode(False):  # rows are drawn into it wherever they are asked for
            pictures = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        if num_samples is None:
            return pictures, pictures
        return pictures, pictures.view(len(request.lr), num_samples, *shape[1:])

    def _rows(self, request: Request, start: int, pictures: Tensor, step: int) -> Iterator[int]:
        """Draw ``pictures``, those of the request from ``start`` on, ``step`` rows at a time.

        ``step`` divides their number; yields how many are drawn, after each step.

        The arithmetic's settings hold only while rows are computed, not while the caller has the
        turn. All state is local: an interruption leaves none behind.
        """
        if not len(pictures):
            yield from range(step, pictures.shape[2] + 1, step)
            return
        first = start // request.samples
        last = (start + len(pictures) - 1) // request.samples + 1
        with exact_fp32(self.device):
            with considerate(len(pictures)):
                engine, packed = self._prepare()
            conditioning = condition(self.model.conditioning, request.lr[first:last], self.config)
            with considerate(len(pictures)):
                job = self._job(request, start, pictures, conditioning)
                state = engine.start(packed, job)
        for y in range(0, pictures.shape[2], step):
            with exact_fp32(self.device):
                engine.rows(state, y, y + step)
            yield y + step

    def _job(
        self, request: Request, start: int, pictures: Tensor, conditioning: Conditioning
    ) -> Job:
        """What an engine needs to draw ``pictures``, given the conditioning of their sources."""
        draws = torch.arange(start, start + len(pictures), device=self.device)
        source = draws // request.samples
        noise = picture_noise(
            request.seed,
            request.first_index + source,
            draws % request.samples,
            pictures.shape[2],
            pictures.shape[3],
            self.config.channels,
        )
        mask = None
        if request.known is not None and request.mask is not None:
            mask = request.mask[source]
            pictures.copy_(torch.where(mask, request.known[source], pictures))
        if request.samples > 1:
            conditioning = Conditioning(*(part[source - source[0]] for part in conditioning))
        return Job(*conditioning, noise, request.temperature[source], mask, pictures)

    def _prepare(self) -> tuple[Engine, Any]:
        """The engine and the packed weights, packed anew where the prior's have changed.

        The weights themselves are compared: version counters miss a write through ``.data``.
        """
        engine = choose(self._engine_name, self.config, self.device, self.precision)
        weights = self.model.prior.state_dict()
        ready = self._ready
        if ready is None or ready[0] is not engine or not same_tensors(ready[1], weights):
            for name, value in weights.items():
                check_finite(value, f"weight prior.{name}")
            copies = {name: value.clone() for name, value in weights.items()}
            # One assignment, so that a thread beside this one sees the old or the new, whole.
            ready = self._ready = engine, copies, engine.pack(self.model.prior, self.precision)
        return engine, ready[2]

    @own_defaults()
    def _request(
        self,
        batch: Batch,
        temperature: float | Tensor,
        seed: int | None,
        num_samples: int | None,
        known: Tensor | None,
        mask: Tensor | None,
        first_index: int,
    ) -> tuple[Request, torch.device]:
        """The checked request, on the model's device, and the device that the caller is on.

        Everything in it is a copy: what the caller changes later does not show.
        """
        lr = as_tensor(batch, self.config)
        check_pictures(lr, "batch", self.config)
        check_values(lr, "batch")
        scale = self.config.scale
        shape = (*lr.shape[:2], scale * lr.shape[2], scale * lr.shape[3])
        check_fits(conditioning_bytes(self.config, *shape[2:]), "conditioning logits", self.device)
        check_levels(lr, "batch", self.config)
        seed, samples, first_index = check_draws(seed, num_samples, first_index, len(lr))
        known, mask = check_known(known, mask, shape, self.config)
        temperatures = check_temperature(temperature, len(lr))
        request = Request(
            lr=lr.to(self.device, copy=True),
            samples=samples,
            temperature=temperatures.detach().to(self.device, copy=True),
            known=None if known is None else known.to(self.device, copy=True),
            mask=None if mask is None else mask.to(self.device, copy=True),
            seed=seed,
            first_index=first_index,
        )
        return request, lr.device


def sample(
    batch: Batch,
    temperature: float | Tensor = 1.0,
    *,
    model: PRSR | None = None,
    seed: int | None = None,
    num_samples: int | None = None,
    engine: str = "auto",
    precision: str = "fp32",
    known: Tensor | None = None,
    mask: Tensor | None = None,
    first_index: int = 0,
    progress: bool | Progress = False,
) -> Tensor:
    """Draw a high-resolution picture for each low-resolution one.

    Each sub-pixel is drawn in its turn from p(y_i | x, y_<i) = softmax((A_i + B_i) / temperature)
    (Dahl et al., arXiv 1702.00783). One seed gives one picture, whatever the batch, its order,
    the shard or the device: picture i draws with the noise of ``(seed, first_index + i)``. The
    engine ``cpu`` keeps that to a bit; where the last bits of logits differ, as from engine to
    engine, a picture parts from its like now and then.

    Args:
        batch: ``uint8`` tensor or NumPy array ``[N, D, h, w]`` of any h and w, values below K; or
            a Pillow picture, or several of one size.
        temperature: smaller is sharper, 0 is greedy; the paper's τ is its inverse. A number, or
            one for each picture, ``[N]``.
        model: None is the bundled model, on the batch's device. The work is done where the model
            lies.
        seed: from 0 to 2⁶⁴ − 1; None draws one from torch's generator.
        num_samples: draw so many for each picture. Sample s is the same whatever their number.
        engine: one of :func:`prsr.engines`, or "auto".
        precision: "fp32", "fp16" or "bf16".
        known: ``uint8 [N, D, H, W]``, sub-pixels to take as given where ``mask`` says so.
        mask: ``bool``, ``[N, D, H, W]`` or what broadcasts to it.
        first_index: the noise index of the first picture: where a shard begins.
        progress: show a bar, or one in a ``rich.progress.Progress`` of the caller's.

    Returns:
        ``uint8 [N, D, s·h, s·w]`` on the batch's device, or ``[N, num_samples, D, s·h, s·w]``.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: one has the wrong shape or value, the model's weights are not finite, or the
            engine cannot serve.
    """
    if model is None:
        model = default_model(batch.device if isinstance(batch, Tensor) else torch.device("cpu"))
    return Sampler(model, engine=engine, precision=precision).sample(
        batch,
        temperature,
        seed=seed,
        num_samples=num_samples,
        known=known,
        mask=mask,
        first_index=first_index,
        progress=progress,
    )


@lru_cache
@own_defaults()
def default_model(device: torch.device = torch.device("cpu")) -> PRSR:  # noqa: B008  (immutable)
    """The bundled model, read once for each device."""
    return PRSR.from_pretrained(DEFAULT_MODEL).to(device)


@contextmanager
def counting(progress: bool | Progress, total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with how much is done of ``total``, shown as ``progress`` says."""
    if not progress:
        yield lambda done: None
        return
    with Progress(transient=True) if progress is True else nullcontext(progress) as bar:
        task = bar.add_task("sampling", total=total)
        try:
            yield lambda done: bar.advance(task, done)
        finally:
            bar.remove_task(task)


def as_tensor(batch: Batch, config: PRSRConfig) -> Tensor:
    """A batch in any of the accepted forms as a tensor ``[N, D, h, w]``; not yet checked.

    Raises:
        TypeError: it is in none of these forms.
        ValueError: Pillow pictures differ in size.
    """
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, np.ndarray):
        if batch.dtype != np.uint8:
            raise TypeError(f"batch must be uint8, got {batch.dtype}")
        return torch.from_numpy(batch.copy())  # for it may be read-only, or have negative strides
    pictures = [batch] if isinstance(batch, Image.Image) else batch
    pictures = list(pictures) if isinstance(pictures, Sequence) else []
    if not pictures or not all(isinstance(picture, Image.Image) for picture in pictures):
        raise TypeError(
            "batch must be a uint8 tensor or array [N, D, h, w] or Pillow pictures, "
            f"got {type(batch).__name__}"
        )
    sizes = {picture.size for picture in pictures}
    if len(sizes) > 1:
        raise ValueError(f"the pictures of a batch must have one size, got {sorted(sizes)}")
    return torch.from_numpy(np.stack([to_array(picture, config) for picture in pictures]))


def same_tensors(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two state dictionaries hold tensors of equal values on the same devices."""
    return a.keys() == b.keys() and all(
        a[name].device == b[name].device and torch.equal(a[name], b[name]) for name in a
    )
