"""Pillow's bicubic resizing as matrix products, on any device.

:func:`resize` gives the values of ``PIL.Image.resize(size, BICUBIC, box=…)``, images in a batch at
a time and where they lie. It does what Pillow's ``Resample.c`` does: Keys' cubic kernel with
a = −½ (*Cubic convolution interpolation for digital image processing*, 1981), widened when it
reduces; weights in fixed point; first along rows, then along columns, each rounded to 8 bits.
Weighted pixels and their sums are integers below 2⁵³, which ``float64`` holds exactly, so that
neither the order of a sum nor the device matters. (A weight itself is a ratio rounded to 22 bits.
That a device whose sums differ in the 53rd bit rounds one otherwise is all but impossible.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from prsr.config import PRSRConfig

FRACTION_BITS = 22
"""Of a weight, as in Pillow."""
CUBIC = -0.5


def resize(pixels: Tensor, size: tuple[int, int], boxes: Tensor | None = None) -> Tensor:
    """Images resized bicubically, each from a box of its own.

    Args:
        pixels: ``uint8 [n, D, H, W]``.
        size: height h and width w of the results, in pixels.
        boxes: ``float32 [n, 4]``: left, top, right and bottom of what is resized, in pixels, within
            the image; None is the whole image. As in Pillow, pixels outside of the box may
            contribute to those at its edge.

    Returns:
        ``uint8 [n, D, h, w]``, on the device of ``pixels``.
    """
    n, channels, height, width = pixels.shape
    if boxes is None:
        boxes = torch.tensor([[0.0, 0.0, width, height]], device=pixels.device)
    left, top, right, bottom = boxes.float().unbind(1)
    across = weights(left, right, width, size[1])  # [n or 1, w, W]
    down = weights(top, bottom, height, size[0])  # [n or 1, h, H]
    rows = pixels.double().flatten(1, 2) @ across.mT  # [n, D·H, w]
    columns = rounded(rows).view(n, channels, height, size[1])
    return rounded(down[:, None] @ columns).to(torch.uint8)


def low_resolution(hr: Tensor, config: PRSRConfig) -> Tensor:
    """What a model sees of images: :func:`prsr.data.images.reduce` on any device, equal in result.

    Args:
        hr: ``uint8 [n, D, s·h, s·w]``, values below K.
        config: of the model, for s and K.

    Returns:
        ``uint8 [n, D, h, w]``, on the device of ``hr``, values below K.
    """
    height, width = (side // config.scale for side in hr.shape[2:])
    return resize(hr, (height, width)).clamp(max=config.levels - 1)


def weights(start: Tensor, end: Tensor, inputs: int, outputs: int) -> Tensor:
    """What each of ``inputs`` pixels contributes to each of ``outputs``, in units of 2⁻²².

    Args:
        start: where the box begins, in pixels, ``float32 [n]``.
        end: where it ends.
        inputs: pixels of a row, or of a column.
        outputs: pixels of the result.

    Returns:
        Integers as ``float64 [n, outputs, inputs]``.
    """
    step = ((end - start).double() / outputs)[:, None, None]  # the difference is float32 in Pillow
    stretch = step.clamp(min=1.0)
    places = torch.arange(max(inputs, outputs), dtype=torch.float64, device=start.device)
    centre = start.double()[:, None, None] + (places[:outputs, None] + 0.5) * step
    kernel = cubic((places[:inputs] - centre + 0.5) / stretch)
    exact = kernel / kernel.sum(-1, keepdim=True) * 2.0**FRACTION_BITS
    return torch.where(exact < 0, (exact - 0.5).ceil(), (exact + 0.5).floor())


def cubic(x: Tensor) -> Tensor:
    """Keys' kernel, equation 4 with a = −½; zero beyond 2."""
    x = x.abs()
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * CUBIC
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def rounded(sums: Tensor) -> Tensor:
    """Sums of weighted pixels, in units of 2⁻²², as levels 0 … 255 in ``float64``."""
    half = 2.0 ** (FRACTION_BITS - 1)
    return ((sums + half) * 2.0**-FRACTION_BITS).floor().clamp(0, 255)
