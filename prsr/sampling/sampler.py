"""The public call: images in, images out. Everything about sampling that is not arithmetic.

Checks, default model and engine, slicing of large batches, noise, the loop over rows, progress,
interruption and streaming stand here, once; an engine (:mod:`prsr.engines`) only computes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor
from typing_extensions import override

from prsr.config import PRSRConfig
from prsr.engines.base import Engine, Job
from prsr.engines.registry import choose
from prsr.models.prsr import PRSR
from prsr.models.saved import DEFAULT_MODEL
from prsr.sampling.conditioning import Conditioning, condition
from prsr.sampling.method import Advance, Method
from prsr.sampling.request import Batch, Request, as_tensor
from prsr.sampling.slices import conditioning_bytes, per_slice
from prsr.utils.argument_checks import (
    check_finite,
    check_fits,
    check_model,
)
from prsr.utils.messages import Notice
from prsr.utils.torch_settings import exact_fp32, own_defaults

LARGE = 4
"""An image more than this many times as high or wide as the model's input is called large."""


class Sampler(Method):
    """A model made ready for drawing: its weights are packed once and packed anew if they change.

    Args:
        model: a :class:`prsr.PRSR`, or any module with ``config``, ``prior`` and a ``conditioning``
            that maps ``uint8 [N, D, h, w]`` to logits ``[N, K, D, H, W]`` (on a CPU it is called
            with single images, maybe by several threads); with conditional gates it is called
            with ``with_features=True`` and returns features ``[N, F, H, W]`` as well. None is the
            bundled model.
        engine: one of :func:`prsr.list_engines`, or "auto" for the best that can serve.
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
        self.model: PRSR = model
        self.config: PRSRConfig = model.config
        self.precision = precision
        self._engine_name = engine
        self._choose()  # raises if none can serve
        self._ready: tuple[Engine, dict[str, Tensor], Any] | None = None

    @property
    def device(self) -> torch.device:
        """Where the model lies, and so where the work is done."""
        return next(self.model.prior.parameters()).device

    @property
    def engine(self) -> str:
        """Name of the engine that serves."""
        return self._choose().name

    @override
    def check_size(self, height: int, width: int) -> None:
        needed = conditioning_bytes(self.config, height, width)
        check_fits(needed, "conditioning logits", self.device)

    @override
    def _draw(self, request: Request, advance: Advance | None) -> Tensor:
        images = self._canvas(request)
        engine = self._choose()
        size = per_slice(self.config, *request.size, self.device)
        step = 1 if advance else request.size[0]  # threads meet after each step
        for start in range(0, len(images), size):
            part = request.slice(start, start + size)
            for _ in self._rows(engine, part, images[start : start + size], step):
                if advance:
                    advance(len(part.wanted) * step)
        return images

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
        """Draw like :meth:`sample`, handing out the images as they grow.

        The batch is drawn as one slice, so its conditioning logits (4·K·D·H·W bytes an image)
        must fit in memory. The arguments are checked at once, not at the first row.

        Returns:
            An iterator over y = 0 … H−1 of the rows so far, a new ``uint8 [N, D, y + 1, W]``, or
            ``[N, num_samples, D, y + 1, W]``.
        """
        request, device = self._request(
            batch, temperature, seed, num_samples, known, mask, first_index
        )
        images = self._canvas(request)
        shaped = images if num_samples is None else request.grouped(images)
        engine = self._choose()
        return (
            shaped[..., :end, :].to(device, copy=True)
            for end in self._rows(engine, request, images, 1)
        )

    def _canvas(self, request: Request) -> Tensor:
        """Memory for all samples."""
        with torch.inference_mode(False):  # rows are drawn into it wherever they are asked for
            return torch.zeros(request.shape, dtype=torch.uint8, device=self.device)

    def _choose(self) -> Engine:
        return choose(self._engine_name, self.config, self.device, self.precision)

    def _rows(self, engine: Engine, request: Request, images: Tensor, step: int) -> Iterator[int]:
        """Draw the samples of a request, ``step`` rows at a time; ``step`` divides H.

        Yields how many rows are drawn, after each step. The arithmetic's settings hold only while
        rows are computed, not while the caller's code runs. All state is local: an interruption
        leaves none behind.
        """
        if not len(images):
            yield from range(step, images.shape[2] + 1, step)
            return
        with exact_fp32(self.device):
            with engine.preparing(len(images)):
                packed = self._pack(engine)
            conditioning = condition(self.model.conditioning, request.lr, self.config)
            with engine.preparing(len(images)):
                state = engine.start(packed, make_job(request, images, conditioning))
        for y in range(0, images.shape[2], step):
            with exact_fp32(self.device):
                engine.rows(state, y, y + step)
            yield y + step

    def _pack(self, engine: Engine) -> Any:
        """The prior's weights as the engine reads them, packed anew when they have changed.

        The weights themselves are compared: version counters miss a write through ``.data``.
        """
        weights = self.model.prior.state_dict()
        ready = self._ready
        if ready is None or ready[0] is not engine or not same_tensors(ready[1], weights):
            for name, value in weights.items():
                check_finite(value, f"weight prior.{name}")
            copies = {name: value.clone() for name, value in weights.items()}
            # One assignment, so that a thread beside this one sees the old or the new, whole.
            ready = self._ready = engine, copies, engine.pack(self.model.prior, self.precision)
        return ready[2]


def make_job(request: Request, images: Tensor, conditioning: Conditioning) -> Job:
    """What an engine needs to draw the samples of a request into ``images``."""
    source = request.source
    request.fill_known(images)
    mask = None if request.mask is None else request.mask[source]
    if len(images) != len(request.lr):
        conditioning = Conditioning(*(part[source] for part in conditioning))
    return Job(*conditioning, request.noise(), request.temperature[source], mask, images)


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
    """Draw a high-resolution image for each low-resolution one.

    Each sub-pixel is drawn in its turn from p(y_i | x, y_<i) = softmax((A_i + B_i) / temperature)
    (Dahl et al., arXiv 1702.00783). One seed gives one image, whatever the batch, its order,
    the shard or the device: image i draws with the noise of ``(seed, first_index + i)``. The
    engine ``cpu`` keeps that to a bit; where the last bits of logits differ, as from engine to
    engine, an image parts from its like now and then.

    Args:
        batch: ``uint8`` tensor or NumPy array ``[N, D, h, w]`` of any h and w, values below K; or
            a Pillow image, or several of one size.
        temperature: smaller is sharper, 0 is greedy; the paper's τ is its inverse. A number, or
            one for each image, ``[N]``.
        model: None is the bundled model, on the batch's device. The work is done where the model
            lies.
        seed: from 0 to 2⁶⁴ − 1; None draws one from torch's generator.
        num_samples: draw so many for each image. Sample s is the same whatever their number.
        engine: one of :func:`prsr.list_engines`, or "auto".
        precision: "fp32", "fp16" or "bf16".
        known: ``uint8 [N, D, H, W]``, sub-pixels to take as given where ``mask`` says so.
        mask: ``bool``, ``[N, D, H, W]`` or what broadcasts to it.
        first_index: the noise index of the first image: where a shard begins.
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
    sampler = Sampler(model, engine=engine, precision=precision)
    lr = as_tensor(batch, sampler.config)
    warn_if_large(lr, sampler.config)
    return sampler.sample(
        lr,
        temperature,
        seed=seed,
        num_samples=num_samples,
        known=known,
        mask=mask,
        first_index=first_index,
        progress=progress,
    )


def warn_if_large(lr: Tensor, config: PRSRConfig) -> None:
    """Warn the caller's caller if images are probably not low-resolution images.

    Args:
        lr: ``uint8 [N, D, h, w]``; not checked yet.
        config: of the model.
    """
    height, width = lr.shape[-2:] if lr.dim() == 4 else (0, 0)
    low_height, low_width, scale = config.low_height, config.low_width, config.scale
    if height > LARGE * low_height or width > LARGE * low_width:
        warnings.warn(
            f"images of {width}×{height} pixels are enlarged as given, to "
            f"{scale * width}×{scale * height}, but the model was trained on "
            f"{low_width}×{low_height}. Reduce photographs first, as the command `prsr sample` "
            f"does: in Pillow, image.resize(({low_width}, {low_height}))",
            Notice,
            stacklevel=3,
        )


@lru_cache
@own_defaults()
def default_model(device: torch.device = torch.device("cpu")) -> PRSR:  # noqa: B008  (immutable)
    """The bundled model, read once for each device."""
    return PRSR.from_pretrained(DEFAULT_MODEL).to(device)


def same_tensors(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two state dictionaries hold tensors of equal values on the same devices."""
    return a.keys() == b.keys() and all(
        a[name].device == b[name].device and torch.equal(a[name], b[name]) for name in a
    )
