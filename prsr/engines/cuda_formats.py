"""The formats of matrix operands in the CUDA kernels, and how steps of 16 of them lie in memory.

``csrc/cuda/mma.h`` defines how a step is divided over the 32 lanes of a warp. For a ``uint4`` array
of ``csrc/cuda/arguments.h``, a tensor here has three additional dimensions,
``[vectors, 32, numbers]``: 16 bytes for each lane.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prsr.utils.argument_checks import check_finite

STEP = 16  # inputs per step, outputs per pair of tiles, images per tile
TILE = 8  # outputs, or features, per tile
LANES = 32

SCALE = 2048
"""Factor of the low part of a split number (``SplitFp16`` in ``csrc/cuda/mma_fp32.h``)."""


def steps_of(count: int) -> int:
    """The number of steps that hold ``count`` values."""
    return -(-count // STEP)


@dataclass(frozen=True)
class Format:
    """A format of operands; the kernels convert features to it, and this class weights.

    Attributes:
        dtype: of the tensors.
        split: whether an operand is two numbers, x = high + low / 2048.
    """

    dtype: torch.dtype
    split: bool = False

    @property
    def lane_shape(self) -> tuple[int, int, int]:
        """The dimensions of one step, ``[vectors, 32, numbers]``."""
        return (2 if self.split else self.dtype.itemsize // 2), LANES, 16 // self.dtype.itemsize

    @property
    def element_shape(self) -> tuple[int, ...]:
        """The dimensions of a single operand outside of steps."""
        return (2,) if self.split else ()

    def holds(self, matrix: Tensor) -> bool:
        """Whether all its numbers are finite in this format."""
        return bool(matrix.to(self.dtype).isfinite().all())

    def parts(self, values: Tensor) -> list[Tensor]:
        """The number, or the high and the low one, that represent each value."""
        high = values.to(self.dtype)
        return [high, (SCALE * (values - high.float())).to(self.dtype)] if self.split else [high]

    def elements(self, values: Tensor) -> Tensor:
        """Operands outside of steps: ``[…]`` as ``[…, *element_shape]``."""
        parts = self.parts(values)
        return torch.stack(parts, dim=-1) if self.split else parts[0]

    def values(self, elements: Tensor) -> Tensor:
        """The inverse of :meth:`elements`, ``float32``."""
        if not self.split:
            return elements.float()
        return elements[..., 0].float() + elements[..., 1].float() / SCALE

    def weight_steps(self, matrix: Tensor, precision: str) -> Tensor:
        """Weights ``[…, 16·steps, 16·pairs]`` as ``[…, pairs, steps, vectors, 32, numbers]``.

        Raises:
            ValueError: a weight is not finite; the message names the precision.
        """
        parts = self.parts(matrix)
        check_finite(parts[0], f"the prior's weights in {precision}")
        return torch.cat([weight_steps(part) for part in parts], dim=-3).contiguous()

    def features_of(self, steps: Tensor) -> Tensor:
        """Features ``[…, steps, vectors, 32, numbers]`` as float32 ``[…, 16, 16·steps]``."""
        if not self.split:
            return features_of(steps).float()
        high, low = (features_of(part) for part in steps.split(1, dim=-3))
        return self.values(torch.stack([high, low], dim=-1))


FORMATS = {
    "tf32": Format(torch.float32),
    "split": Format(torch.float16, split=True),
    "fp16": Format(torch.float16),
    "bf16": Format(torch.bfloat16),
}
"""By the name that the extension gives them. Biases and the first layers are fp32 in all."""

PRECISIONS = ("fp32", "fp16", "bf16")
"""Precisions of the engine; fp32 is computed in the format "split" or "tf32"."""


def weight_steps(matrix: Tensor) -> Tensor:
    """Weights ``[…, 16·steps, 16·pairs]`` as ``[…, pairs, steps, vectors, 32, numbers]``.

    In each of the two tiles, a lane holds output ``lane // 4`` with the inputs 2·(lane % 4) and the
    next one, in both halves of the step.
    """
    *batch, inputs, outputs = matrix.shape
    steps, pairs = inputs // STEP, outputs // STEP
    split = matrix.reshape(-1, steps, 2, 4, 2, pairs, 2, TILE)
    # [batch, step, half, column, number, pair, tile, output]
    if matrix.dtype == torch.float32:
        ordered = split.permute(0, 5, 1, 6, 7, 3, 2, 4)  # the tile is the vector
    else:
        ordered = split.permute(0, 5, 1, 7, 3, 6, 2, 4)
    return ordered.reshape(*batch, pairs, steps, *Format(matrix.dtype).lane_shape)


def features_of(steps: Tensor) -> Tensor:
    """Features ``[…, steps, vectors, 32, numbers]`` as ``[…, 16 images, 16·steps]``.

    In each of the two tiles, a lane holds the images ``lane // 4`` and ``lane // 4 + 8`` with the
    features 2·(lane % 4) and the next one.
    """
    *batch, count, _, _, _ = steps.shape
    if steps.dtype == torch.float32:
        split = steps.reshape(-1, count, 2, 8, 4, 2, 2)  # tile, image, column, image half, number
        ordered = split.permute(0, 5, 3, 1, 2, 4, 6)
    else:
        split = steps.reshape(-1, count, 8, 4, 2, 2, 2)  # image, column, tile, image half, number
        ordered = split.permute(0, 5, 2, 1, 4, 3, 6)
    return ordered.reshape(*batch, STEP, count * STEP)
