"""Pillow's bicubic resize as matrix products, for batches on any device.

:func:`resize` computes the values of ``PIL.Image.resize(size, BICUBIC, box=…)`` with the algorithm
of Pillow's ``Resample.c``: Keys' cubic kernel with a = −½ (*Cubic convolution interpolation for
digital image processing*, 1981), widened for reductions; fixed-point weights; first along rows,
then along columns, each rounded to 8 bits. Weighted pixels and their sums are integers below 2⁵³,
which ``float64`` represents exactly, so that the result depends neither on the order of summation
nor on the device. (A weight is a ratio rounded to 22 bits. A device whose sums differ in the 53rd
bit could in principle round it differently, but this is extremely unlikely.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from prsr.config import PRSRConfig

FRACTION_BITS = 22
"""Fractional bits of a weight, as in Pillow."""
CUBIC = -0.5


def resize(pixels: Tensor, size: tuple[int, int], boxes: Tensor | None = None) -> Tensor:
    """Resize a box of each image bicubically.

    Args:
        pixels: ``uint8 [n, D, H, W]``.
        size: height h and width w of the results, in pixels.
        boxes: left, top, right and bottom of the boxes in pixels, ``float32 [n, 4]``, inside the
            images; None is the whole image. As in Pillow, pixels outside of a box may contribute to
            the result at its edge.

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
    """The model's inputs for images: equals :func:`prsr.data.image_arrays.reduce`, on any device.

    Args:
        hr: ``uint8 [n, D, s·h, s·w]``, values below K.
        config: of the model, for s and K.

    Returns:
        ``uint8 [n, D, h, w]``, on the device of ``hr``, values below K.
    """
    height, width = (side // config.scale for side in hr.shape[2:])
    return resize(hr, (height, width)).clamp(max=config.levels - 1)


def weights(start: Tensor, end: Tensor, inputs: int, outputs: int) -> Tensor:
    """The weight of each input pixel in each output pixel, in units of 2⁻²².

    Args:
        start: beginning of the box in pixels, ``float32 [n]``.
        end: end of the box in pixels, ``float32 [n]``.
        inputs: pixels of a row or column of the image.
        outputs: pixels of a row or column of the result.

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
    """Round sums of weighted pixels, in units of 2⁻²², to levels 0 … 255 in ``float64``."""
    half = 2.0 ** (FRACTION_BITS - 1)
    return ((sums + half) * 2.0**-FRACTION_BITS).floor().clamp(0, 255)
