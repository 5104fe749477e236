"""The sampler: :func:`prsr.sample` and :class:`prsr.Sampler`.

It does everything but the arithmetic, which is the engine's (:mod:`prsr.engines`): the default
model, the choice of an engine, slices of large batches, the loop over rows, progress, interruption
and streaming.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from rich.progress import Progress
from torch import Tensor
from typing_extensions import override

from prsr.config import PRSRConfig
from prsr.engines.base import Engine, Job
from prsr.engines.packed_weights import packed_weights
from prsr.engines.registry import choose
from prsr.models.model_files import DEFAULT_MODEL
from prsr.models.prsr import PRSR
from prsr.sampling.conditioning import Conditioner, Conditioning, conditioning_bytes
from prsr.sampling.method import Advance, Method
from prsr.sampling.out_of_memory import draw_slices, explain
from prsr.sampling.request import Batch, Request, as_tensor
from prsr.sampling.slice_size import fit_in_free_memory, per_slice
from prsr.utils.argument_checks import SMALL, check_fits, check_model
from prsr.utils.terminal_messages import Notice
from prsr.utils.torch_settings import exact_fp32, own_defaults

LARGE = 4
"""An image more than this many times as high or wide as the model's input is called large."""


class Sampler(Method):
    """Samples from a model with a chosen engine, all at once or row by row.

    The model's weights are packed once, and again when they have changed. The packed weights are
    kept as long as the model exists, so that a new sampler of the same model uses them too.

    Args:
        model: a :class:`prsr.PRSR`, or any module with ``config``, ``prior`` and a ``conditioning``
            that maps ``uint8 [N, D, h, w]`` to logits ``[N, K, D, H, W]``. On a CPU it is called
            with one image at a time, possibly by several threads. With conditional gates it is
            called with ``with_features=True`` and also returns features ``[N, F, H, W]``. None
            selects the default bundled model.
        engine: a name from :func:`prsr.list_engines`, or "auto" for the fastest available.
        precision: "fp32", "fp16" or "bf16".

    Raises:
        TypeError: ``model`` is not such a module.
        ValueError: the engine or precision does not exist, or the engine cannot be used here; the
            message gives every reason.
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
        self._choose()  # raises if there is none

    @property
    def device(self) -> torch.device:
        """Device of the model, where sampling runs."""
        return next(self.model.prior.parameters()).device

    @property
    def engine(self) -> str:
        """Name of the engine in use."""
        return self._choose().name

    @override
    def check_size(self, height: int, width: int) -> None:
        if conditioning_bytes(self.config, height, width) <= SMALL:
            return
        conditioner = self._conditioner(self._choose())
        what = "features" if conditioner.defers_logits else "logits"
        check_fits(conditioner.bytes_per_image(height, width), f"conditioning {what}", self.device)

    @override
    def _draw(self, request: Request, advance: Advance | None) -> Tensor:
        images = self._canvas(request)
        engine = self._choose()
        conditioner = self._conditioner(engine)
        size = per_slice(engine, conditioner, *request.size)
        step = 1 if advance else request.size[0]  # threads synchronise after each step

        def rows(start: int, stop: int) -> Iterator[int]:
            part = request.slice(start, stop)
            return self._rows(engine, lambda: conditioner, part, images[start:stop], step)

        draw_slices(len(images), size, rows, advance or (lambda rows: None))
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
        """Sample like :meth:`sample`, and yield the images row by row.

        The batch is one slice: its conditioning (on a GPU 4·K·D·H·W bytes per sample) must fit in
        memory. On a GPU, if it does not, torch.OutOfMemoryError says how many samples would.
        Arguments are checked at the call, not at the first row.

        Returns:
            An iterator over y = 0 … H−1 of the rows so far: a new ``uint8 [N, D, y + 1, W]`` each
            time, or ``[N, num_samples, D, y + 1, W]``.
        """
        request, device = self._request(
            batch, temperature, seed, num_samples, known, mask, first_index
        )
        images = self._canvas(request)
        shaped = images if num_samples is None else request.grouped(images)
        engine = self._choose()
        rows = explain(
            self._rows(engine, lambda: self._conditioner(engine), request, images, 1),
            len(images),
            lambda: fit_in_free_memory(engine, self._conditioner(engine), *request.size),
        )
        return (shaped[..., :end, :].to(device, copy=True) for end in rows)

    def _canvas(self, request: Request) -> Tensor:
        """Memory for all samples."""
        with torch.inference_mode(False):  # rows may be written inside and outside it
            return torch.zeros(request.shape, dtype=torch.uint8, device=self.device)

    def _choose(self) -> Engine:
        return choose(self._engine_name, self.config, self.device, self.precision, self.model.prior)

    def _conditioner(self, engine: Engine) -> Conditioner:
        last_layer = engine.computes_last_layer
        network = self.model.conditioning
        return Conditioner(network, self.config, self.device, last_layer=last_layer)

    def _rows(
        self,
        engine: Engine,
        conditioner: Callable[[], Conditioner],
        request: Request,
        images: Tensor,
        step: int,
    ) -> Iterator[int]:
        """Draw the samples of a request, ``step`` rows at a time; ``step`` divides H.

        Yields the number of finished rows after each step. torch's settings are changed only while
        rows are computed, not while the caller's code runs. All state is local, so that an
        interruption leaves none behind.
        """
        if not len(images):
            yield from range(step, images.shape[2] + 1, step)
            return
        with exact_fp32(self.device):
            packed = packed_weights(engine, self.model.prior, self.precision)
            state = engine.start(packed, make_job(request, images, conditioner()(request.lr)))
        for y in range(0, images.shape[2], step):
            with exact_fp32(self.device):
                engine.rows(state, y, y + step)
            yield y + step


def make_job(request: Request, images: Tensor, conditioning: Conditioning) -> Job:
    """The engine's job for the samples of a request; ``images`` receives them."""
    source = request.source
    request.fill_known(images)
    mask = None if request.mask is None else request.mask[source]
    if len(images) != len(request.lr):
        conditioning = conditioning.of_images(source)
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
    """Sample a high-resolution image for each low-resolution image.

    Sub-pixels are drawn one after another from p(y_i | x, y_<i) = softmax((A_i + B_i) /
    temperature) (Dahl et al., arXiv 1702.00783). A seed determines the images, whatever the batch,
    its order, the shard or the device: image i uses the noise of ``(seed, first_index + i)``. With
    the engine ``cpu``, images are bit-identical in any batch and with any number of threads. Other
    engines round logits differently, so that a draw very close to an edge of the CDF may differ.

    Args:
        batch: ``uint8`` tensor or NumPy array ``[N, D, h, w]`` of any h and w, values below K; or
            one or several Pillow images of one size.
        temperature: divides the logits. Smaller is sharper; 0 selects the likeliest level. The
            inverse of the paper's τ. A number, or a tensor ``[N]`` with one for each image.
        model: the model, sampled on its device. None selects the default bundled model, on the
            device of the batch.
        seed: 0 to 2⁶⁴ − 1. None draws a seed from torch's generator.
        num_samples: samples per image. Sample s does not depend on their number.
        engine: a name from :func:`prsr.list_engines`, or "auto".
        precision: "fp32", "fp16" or "bf16".
        known: ``uint8 [N, D, H, W]``: known sub-pixels, used where ``mask`` is true.
        mask: ``bool``, ``[N, D, H, W]`` or broadcastable to it.
        first_index: index of the first image in the noise; a shard starts at its own.
        progress: True shows a progress bar; a ``rich.progress.Progress`` gets a task.

    Returns:
        ``uint8 [N, D, s·h, s·w]`` on the batch's device, or ``[N, num_samples, D, s·h, s·w]``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has the wrong shape or value, the model's weights are not finite, or
            the engine cannot be used here.
        torch.OutOfMemoryError: not even a single sample fits in the GPU's memory. Otherwise,
            slices of the batch are halved until they fit.
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
    """The default bundled model, loaded once for each device."""
    return PRSR.from_pretrained(DEFAULT_MODEL).to(device)
