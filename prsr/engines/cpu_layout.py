"""Memory layouts of the engine ``cpu``: weights in blocks or in strips, caches, and inputs.

``csrc/cpu/gemm.h`` reads blocks, for single images; ``csrc/cpu/bundle_gemm.h`` reads strips, for
bundles of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from prsr.config import PRSRConfig
from prsr.engines.grouped_weights import PackedPrior
from prsr.utils.torch_threads import single_threaded_section

LINE = 16  # floats per cache line of 64 bytes
BLOCK = 64  # outputs per block of weights
TILE = 16  # rows and columns of a tile, the latter in floats or pairs


def aligned_zeros(*shape: int) -> Tensor:
    """Zeros, ``float32``, aligned to 64 bytes.

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
        bf16: 1 if all products but the first layers' take bfloat16, else 0.
    """

    channels: int
    levels: int
    features: int
    layers: int
    reach: int
    first_reach: int
    units: int
    gate_inputs: int
    bf16: int

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
            bf16=int(precision == "bf16"),
        )

    def operands(self, inputs: int) -> int:
        """Floats that hold this number of inputs of a product: half as many in bf16."""
        return (inputs + 1) // 2 if self.bf16 else inputs

    @property
    def horizontal_operands(self) -> int:
        """Floats that hold the features of the horizontal stack: each group begins a new one."""
        fewest, more = divmod(self.features, self.channels)
        groups = [fewest + (g < more) for g in range(self.channels)]
        return sum(map(self.operands, groups))


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
        config: sizes of the prior, and the precision.
        strip_widths: the most outputs per strip, in the vertical stack and elsewhere; they depend
            on the instruction set.
        instruction_set: of the kernels that read the weights.
        tiles: whether tiles compute the large products (``csrc/cpu/tile_gemm.h``).
    """

    packed: PackedPrior
    config: PriorConfig
    strip_widths: tuple[int, int]
    instruction_set: str
    tiles: bool = False

    @cached_property
    def blocks(self) -> FlatWeights:
        """For images drawn one by one."""
        return lay_out(self.packed, blocks, blocks, self.operands)

    @cached_property
    def strips(self) -> FlatWeights:
        """For images drawn in bundles."""
        of_row, of_pixel = (partial(strips, width=width) for width in self.strip_widths)
        return lay_out(self.packed, of_row, of_pixel, self.operands, self.tiles)

    @property
    def operands(self) -> Operands:
        """How the weights of all but the first layers are stored."""
        return paired if self.config.bf16 else as_they_are


Order = Callable[[Tensor], Tensor]
"""Flattens a matrix ``[inputs, outputs]`` in a memory order."""

Operands = Callable[[Tensor, Sequence[int]], Tensor]
"""Converts ``[inputs, outputs]``, given numbers of successive inputs: :func:`paired`."""


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


def tiles(matrix: Tensor, segments: Sequence[int]) -> Tensor:
    """``[pairs, outputs]`` as ``csrc/cpu/tile_gemm.h`` reads it, flat.

    Strips of 16 outputs; each is chunks of 16 pairs, ``[outputs, pairs]``.

    Args:
        matrix: the weights, as :func:`paired` returns them.
        segments: numbers of successive pairs that begin a new chunk.
    """
    return torch.cat([
        chunk.T.flatten()
        for strip in matrix.split(TILE, dim=1)
        for segment in strip.split(list(segments))
        for chunk in segment.split(TILE)
    ])  # fmt: skip


def paired(matrix: Tensor, ranges: Sequence[int]) -> Tensor:
    """``[inputs, outputs]`` in bfloat16, two inputs in the place of a float: ``[pairs, outputs]``.

    Args:
        matrix: the weights, ``float32``.
        ranges: numbers of successive inputs that begin a new pair; one that is odd ends with a
            pair whose second half is zero.
    """
    even = [F.pad(part, (0, 0, 0, len(part) % 2)) for part in matrix.split(list(ranges))]
    rounded = torch.cat([matrix[:0], *even]).bfloat16()
    return torch.stack([rounded[::2], rounded[1::2]], dim=-1).view(torch.float32)[..., 0]


def as_they_are(matrix: Tensor, ranges: Sequence[int]) -> Tensor:
    """The matrix: in fp32, inputs are not paired."""
    return matrix


def unpaired(pairs: Tensor, ranges: Sequence[int]) -> Tensor:
    """The inverse of :func:`paired` for caches: ``[…, pairs, b]`` as ``[…, features, b]``."""
    halves = pairs.contiguous().view(torch.bfloat16).unflatten(-1, (-1, 2))
    flat = halves.transpose(-1, -2).flatten(-3, -2).float()
    padded = flat.split([count + count % 2 for count in ranges], dim=-2)
    parts = [part[..., :count, :] for part, count in zip(padded, ranges, strict=True)]
    return torch.cat(parts, dim=-2)


def by_pixels(kernel: Tensor) -> Tensor:
    """A kernel ``[outputs, C, rows, columns]`` as a matrix with inputs in the order of pixels."""
    return kernel.permute(2, 3, 1, 0).flatten(0, 2)


def lay_out(
    packed: PackedPrior, of_row: Order, of_pixel: Order, operands: Operands, tiled: bool = False
) -> FlatWeights:
    """All weights in the order in which ``csrc/cpu/operands.cpp`` reads them.

    Args:
        packed: the prior.
        of_row: memory order for the vertical stack.
        of_pixel: for the horizontal stack and the head.
        operands: how weights are stored, except in the first layers.
        tiled: whether the large products have the order of :func:`tiles` instead; operands are
            pairs then.
    """
    config = packed.config

    def large(matrix: Tensor, ranges: Sequence[int], segments: Sequence[int], of: Order) -> Tensor:
        """A matrix whose inputs are segments of so many ranges, each of which begins a pair."""
        weights = operands(matrix, ranges)
        if not tiled:
            return of(weights)
        ends = [0, *accumulate(segments)]
        parts = [ranges[begin:end] for begin, end in pairwise(ends)]
        return tiles(weights, [sum((count + 1) // 2 for count in part) for part in parts])

    features, units = packed.features.sizes, packed.units.sizes
    parts = [of_row(by_pixels(packed.first_vertical.weight)), packed.first_vertical.bias]
    # The conditioning features precede the other inputs, so that sums computed one row ahead
    # (csrc/cpu/vertical.h) include them.
    for block in packed.blocks:
        kernel = block.vertical.weight
        rows, columns = kernel.shape[2:]
        windows = [config.gate_inputs] + rows * columns * [config.prior_channels]
        vertical = torch.cat([block.conditional, by_pixels(kernel)])
        parts += [large(vertical, windows, [1] + rows * [columns], of_row), block.vertical.bias]
        linked = config.gate_inputs, 2 * config.prior_channels
        link = block.link.weight.roll(config.gate_inputs, dims=0)
        parts += [large(link, linked, [1, 1], of_row), block.link.bias]
    # The kernel reads the pixels to the left pixel by pixel, not colour by colour.
    left = packed.first_left.weight.view(config.channels, config.first_reach, -1)
    parts += [of_pixel(left.transpose(0, 1).flatten(0, 1)), packed.first_left.bias]
    parts += [of_pixel(operands(taps, config.reach * features)) for taps in packed.taps]
    for g, first_own in enumerate(packed.first_own):
        own_features, own_units = features[: g + 1], units[: g + 1]
        parts.append(of_pixel(first_own))
        for block in packed.blocks:
            parts.append(of_pixel(operands(block.centre[g], own_features)))
            parts += [of_pixel(operands(block.mix[g].weight, own_features)), block.mix[g].bias]
        hidden, output = packed.hidden[g], packed.output[g]
        parts += [of_pixel(operands(hidden.weight, own_features)), hidden.bias]
        parts += [large(output.weight, own_units, (g + 1) * [1], of_pixel), output.bias]
    return line_up(parts)


def line_up(parts: list[Tensor]) -> FlatWeights:
    """Concatenate matrices and biases, each aligned to 64 bytes."""
    offsets = list(accumulate((-(-part.numel() // LINE) * LINE for part in parts), initial=0))
    memory = aligned_zeros(offsets[-1])
    for part, offset in zip(parts, offsets, strict=False):
        memory[offset : offset + part.numel()] = part
    return FlatWeights(memory, torch.tensor(offsets[:-1], dtype=torch.int64, device="cpu"))


def cache_shapes(config: PriorConfig, image: torch.Size, bundle: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the ``float32`` caches of ``csrc/cpu/operands.h`` for images ``[N, D, H, W]``.

    In bf16, two features take the place of a float in "vertical" and "horizontal".
    """
    features, layers = config.features, config.layers
    p, p0 = config.reach, config.first_reach
    n, _, height, width = image
    bundles = n // bundle
    return {
        "values": (bundles, p0 + height, p0 + width + p0, config.channels, bundle),
        "vertical": (bundles, layers, p + 1, p + width + p, config.operands(features), bundle),
        "above": (bundles, width, layers, 2 * features, bundle),
        "ahead": (n if bundle == 1 else 0, layers * width * 2 * features + 1),
        "horizontal": (bundles, p + width, layers + 1, config.horizontal_operands, bundle),
    }


def contiguous(tensor: Tensor) -> Tensor:
    """The tensor as one block of memory, copied if necessary.

    Logits and features of prsr's own networks need no copy. A copy for few images uses one thread:
    torch's other threads would spin afterwards on the cores that the engine needs.
    """
    if tensor.is_contiguous():
        return tensor
    with single_threaded_section(len(tensor)):
        return tensor.contiguous()


def bundled(features: Tensor, bundle: int, bf16: bool) -> Tensor:
    """``[N, F, H, W]`` as ``csrc/cpu/operands.h`` reads it: ``[N / bundle, H, W, F, bundle]``.

    In bf16, two features take the place of a float.
    """
    images = features.permute(0, 2, 3, 1)
    if bf16 and images.numel():
        images = F.pad(images, (0, images.shape[3] % 2)).bfloat16().contiguous()
        images = images.view(torch.float32)
    images = contiguous(images)
    shape = len(images) // bundle, *images.shape[1:], bundle
    if bundle == 1 or images.numel() == 0:
        return images.view(shape)
    # One transposed matrix per bundle: PyTorch copies these several times faster than a
    # permutation of five dimensions.
    return torch.stack([own.flatten(1).T for own in images.unflatten(0, (-1, bundle))]).view(shape)
