"""Memory layout of a prior's weights for the engine ``cpu``: in blocks, or in strips.

``csrc/cpu/gemm.h`` reads blocks, for single images; ``csrc/cpu/bundle_gemm.h`` reads strips, for
bundles of images.
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
from prsr.engines.grouped_weights import PackedPrior

LINE = 16  # floats per cache line of 64 bytes
BLOCK = 64  # outputs per block of weights


def aligned_zeros(*shape: int) -> Tensor:
    """Zeros, aligned to 64 bytes.

    Allocated by NumPy: torch would use its own threads, which then spin on the cores that the
    engine's threads need.
    """
    size = math.prod(shape)
    memory = torch.from_numpy(np.zeros(size + LINE, dtype=np.float32))
    start = -memory.data_ptr() // 4 % LINE
    return memory[start : start + size].view(shape)


class PriorConfig(NamedTuple):
    """Sizes of a prior, as the struct of the same name in ``csrc/cpu/operands.h``.

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
    def of(cls, config: PRSRConfig, precision: str) -> PriorConfig:
        """The sizes for a configuration; ``precision`` is "fp32" or "bf16"."""
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
class FlatWeights:
    """All weights of a network in one tensor, as ``csrc/cpu/operands.cpp`` reads them.

    Attributes:
        memory: all matrices and biases in order, each aligned to 64 bytes, ``float32``.
        offsets: index of the first element of each, ``int64``.
    """

    memory: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class CPUWeights:
    """The weights of a prior in the layouts of the engine ``cpu``.

    Attributes:
        packed: the weights by colour groups.
        config: sizes of the prior, and whether its head is in bfloat16.
        strip_widths: the most outputs per strip, in the vertical stack and elsewhere; they depend
            on the instruction set.
        instruction_set: of the kernels that read the weights.
    """

    packed: PackedPrior
    config: PriorConfig
    strip_widths: tuple[int, int]
    instruction_set: str

    @cached_property
    def blocks(self) -> FlatWeights:
        """For images drawn one by one."""
        of_head = half_blocks if self.config.half_head else blocks
        return lay_out(self.packed, blocks, blocks, of_head)

    @cached_property
    def strips(self) -> FlatWeights:
        """For images drawn in bundles; always ``float32``, because a bundle shares each load."""
        of_row, of_pixel = (partial(strips, width=width) for width in self.strip_widths)

        def rounded(matrix: Tensor) -> Tensor:
            return of_pixel(matrix.bfloat16().float())

        return lay_out(
            self.packed, of_row, of_pixel, rounded if self.config.half_head else of_pixel
        )


Order = Callable[[Tensor], Tensor]
"""Flattens a matrix ``[inputs, outputs]`` in a memory order."""


def blocks(matrix: Tensor) -> Tensor:
    """``[inputs, outputs]`` as ``csrc/cpu/gemm.h`` reads it, flat.

    Blocks of 64 outputs, each ``[inputs, 64]``; the width of the last one is the remaining outputs
    rounded up to 16, padded with zeros.
    """
    padded = F.pad(matrix, (0, -matrix.shape[1] % LINE))
    return torch.cat([block.flatten() for block in padded.split(BLOCK, dim=1)])


def strips(matrix: Tensor, width: int) -> Tensor:
    """``[inputs, outputs]`` as ``csrc/cpu/bundle_gemm.h`` reads it, flat.

    Strips of at most ``width`` outputs, an even number, as equal as pairs of outputs allow; each is
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
    """A kernel ``[outputs, C, rows, columns]`` as a matrix with inputs in the order of pixels."""
    return kernel.permute(2, 3, 1, 0).flatten(0, 2)


def lay_out(packed: PackedPrior, of_row: Order, of_pixel: Order, of_head: Order) -> FlatWeights:
    """All weights in the order in which ``csrc/cpu/operands.cpp`` reads them.

    Args:
        packed: the prior.
        of_row: memory order for the vertical stack.
        of_pixel: for the horizontal stack.
        of_head: for the head.
    """

    def layer(order: Order, weight: Tensor, bias: Tensor) -> list[Tensor]:
        return [order(weight), bias]

    parts = layer(of_row, by_pixels(packed.first_vertical.weight), packed.first_vertical.bias)
    # The conditioning features precede the other inputs, so that sums computed one row ahead
    # (csrc/cpu/vertical.h) include them.
    gate_inputs = packed.config.gate_inputs
    for block in packed.blocks:
        vertical = torch.cat([block.conditional, by_pixels(block.vertical.weight)])
        parts += layer(of_row, vertical, block.vertical.bias)
        parts += layer(of_row, block.link.weight.roll(gate_inputs, dims=0), block.link.bias)
    # The kernel reads the pixels to the left pixel by pixel, not colour by colour.
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


def line_up(parts: list[Tensor]) -> FlatWeights:
    """Concatenate matrices and biases, each aligned to 64 bytes."""
    offsets = list(accumulate((-(-part.numel() // LINE) * LINE for part in parts), initial=0))
    memory = aligned_zeros(offsets[-1])
    for part, offset in zip(parts, offsets, strict=False):
        memory[offset : offset + part.numel()] = part
    return FlatWeights(memory, torch.tensor(offsets[:-1], dtype=torch.int64, device="cpu"))
