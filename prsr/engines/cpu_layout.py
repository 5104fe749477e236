"""A prior's weights as the C++ of the engine ``cpu`` reads them: in blocks, or in strips.

``csrc/product.h`` multiplies the features of one image by blocks, ``csrc/bundle.h`` those of
several by strips.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from prsr.config import PRSRConfig
from prsr.engines.packing import Packed

LINE = 16  # floats in a line of 64 bytes
BLOCK = 64  # outputs whose packed weights lie side by side


def aligned_zeros(*shape: int) -> Tensor:
    """Zeros from a line of 64 bytes on.

    NumPy's, for torch's threads would share the work, and then spin where the engine's are wanted.
    """
    size = math.prod(shape)
    memory = torch.from_numpy(np.zeros(size + LINE, dtype=np.float32))
    start = -memory.data_ptr() // 4 % LINE
    return memory[start : start + size].view(shape)


class Numbers(NamedTuple):
    """What ``csrc/engine.h`` knows of a prior, under the same names.

    Attributes:
        channels: D.
        levels: K.
        features: C.
        layers: L.
        reach: p.
        first_reach: p0.
        units: M.
        gate_inputs: F, 0 without conditional gates.
        half_head: 1 if the head's weights are bfloat16, else 0.
    """

    channels: int
    levels: int
    features: int
    layers: int
    reach: int
    first_reach: int
    units: int
    gate_inputs: int
    half_head: int

    @classmethod
    def of(cls, config: PRSRConfig, precision: str) -> Numbers:
        """Those of a configuration, drawn in "fp32" or "bf16"."""
        return cls(
            channels=config.channels,
            levels=config.levels,
            features=config.prior_channels,
            layers=config.prior_layers,
            reach=config.reach,
            first_reach=config.first_reach,
            units=config.head_channels,
            gate_inputs=config.gate_inputs,
            half_head=int(precision == "bf16"),
        )


@dataclass(frozen=True)
class Weights:
    """A prior as ``csrc/engine.cpp`` reads it.

    Attributes:
        memory: every matrix and bias behind one another, each from a line on, ``float32``.
        offsets: where each begins, ``int64``.
    """

    memory: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class Laid:
    """A prior as the engine wants it.

    Attributes:
        packed: by colour groups.
        numbers: of the prior, and whether its head is in bfloat16.
        strip_widths: of the vertical stack's weights and of the others, where images are drawn in
            bundles; what the instruction set likes.
        instruction_set: of the kernels that read them.
    """

    packed: Packed
    numbers: Numbers
    strip_widths: tuple[int, int]
    instruction_set: str

    @cached_property
    def blocks(self) -> Weights:
        """For images that are drawn one by one."""
        of_head = half_blocks if self.numbers.half_head else blocks
        return lay_out(self.packed, blocks, blocks, of_head)

    @cached_property
    def strips(self) -> Weights:
        """For images in bundles, which share the reading of weights: all of them ``float32``."""
        of_row, of_pixel = (partial(strips, width=width) for width in self.strip_widths)

        def rounded(matrix: Tensor) -> Tensor:
            return of_pixel(matrix.bfloat16().float())

        return lay_out(
            self.packed, of_row, of_pixel, rounded if self.numbers.half_head else of_pixel
        )


Order = Callable[[Tensor], Tensor]
"""How the numbers of a matrix ``[inputs, outputs]`` follow each other in memory."""


def blocks(matrix: Tensor) -> Tensor:
    """``[inputs, outputs]`` as ``csrc/product.h`` reads it, flat.

    Block by block of 64 outputs: ``[inputs, 64]``, the last one as wide as what is left rounded up
    to 16, with zeros.
    """
    padded = F.pad(matrix, (0, -matrix.shape[1] % LINE))
    return torch.cat([block.flatten() for block in padded.split(BLOCK, dim=1)])


def strips(matrix: Tensor, width: int) -> Tensor:
    """``[inputs, outputs]`` as ``csrc/bundle.h`` reads it, flat.

    Strip by strip of at most ``width`` outputs, an even number, pairs of them dealt out evenly:
    ``[inputs, outputs of the strip]``.
    """
    count = -(-matrix.shape[1] // width)
    pairs = torch.arange(0, matrix.shape[1], 2, device="cpu").tensor_split(count)
    begins = [int(own[0]) for own in pairs]
    return torch.cat([strip.flatten() for strip in matrix.tensor_split(begins[1:], dim=1)])


def half_blocks(matrix: Tensor) -> Tensor:
    """:func:`blocks` in bfloat16, two in the place of a float."""
    return blocks(matrix).bfloat16().view(torch.float32)


def by_pixels(kernel: Tensor) -> Tensor:
    """A kernel ``[outputs, C, rows, columns]`` as a matrix: inputs row by row, pixel by pixel."""
    return kernel.permute(2, 3, 1, 0).flatten(0, 2)


def lay_out(packed: Packed, of_row: Order, of_pixel: Order, of_head: Order) -> Weights:
    """All weights in the order in which ``csrc/engine.cpp`` asks for them.

    Args:
        packed: the prior.
        of_row: for the vertical stack.
        of_pixel: for the horizontal stack.
        of_head: for the head.
    """

    def layer(order: Order, weight: Tensor, bias: Tensor) -> list[Tensor]:
        return [order(weight), bias]

    parts = layer(of_row, by_pixels(packed.first_vertical.weight), packed.first_vertical.bias)
    # The conditioning features come before the other inputs. So sums that are begun a row ahead
    # (csrc/vertical.h) have them already.
    gate_inputs = packed.config.gate_inputs
    for block in packed.blocks:
        vertical = torch.cat([block.conditional, by_pixels(block.vertical.weight)])
        parts += layer(of_row, vertical, block.vertical.bias)
        parts += layer(of_row, block.link.weight.roll(gate_inputs, dims=0), block.link.bias)
    # Here the pixels to the left come pixel by pixel, not colour by colour.
    left = packed.first_left.weight.view(packed.config.channels, packed.config.first_reach, -1)
    parts += layer(of_pixel, left.transpose(0, 1).flatten(0, 1), packed.first_left.bias)
    parts += map(of_pixel, packed.taps)
    for g, first_own in enumerate(packed.first_own):
        parts.append(of_pixel(first_own))
        for block in packed.blocks:
            mix = block.mix[g]
            parts += [of_pixel(block.centre[g]), *layer(of_pixel, mix.weight, mix.bias)]
        for head in (packed.hidden[g], packed.output[g]):
            parts += layer(of_head, head.weight, head.bias)
    return line_up(parts)


def line_up(parts: list[Tensor]) -> Weights:
    """Matrices and biases behind one another, each from a line on."""
    offsets = list(accumulate((-(-part.numel() // LINE) * LINE for part in parts), initial=0))
    memory = aligned_zeros(offsets[-1])
    for part, offset in zip(parts, offsets, strict=False):
        memory[offset : offset + part.numel()] = part
    return Weights(memory, torch.tensor(offsets[:-1], dtype=torch.int64, device="cpu"))
