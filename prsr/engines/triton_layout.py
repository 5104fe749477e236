"""Memory layout of a prior's weights for the Triton kernels: padded to powers of two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.engines.fp16_range import Bounds
from prsr.engines.grouped_weights import Layer, PackedBlock, PackedPrior, fit

IN = 32  # inputs per step of a GEMM
SMALLEST = 16  # side of a tl.dot
WIDEST = 64  # features of a colour that fit the registers

OPERANDS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""The dtype of all weights except biases and the first layers, by precision."""


def next_power_of_two(number: int) -> int:
    """The smallest power of two that is at least ``number`` and a valid side of a ``tl.dot``."""
    return max(SMALLEST, 1 << (number - 1).bit_length())


@dataclass(frozen=True)
class Tiles:
    """Tile sizes, powers of two; weights are padded to multiples of them.

    Attributes:
        half: features of a layer per tile; with both halves of the gate, twice as many outputs.
        group: features of one colour, or a part of them if they do not fit the registers.
        units: hidden units of the head per tile.
        levels: levels of a sub-pixel.
    """

    half: int
    group: int
    units: int
    levels: int

    @classmethod
    def of(cls, config: PRSRConfig) -> Tiles:
        """The tile sizes for a configuration."""
        colours = config.channels
        return cls(
            half=min(64, next_power_of_two(config.prior_channels)),
            group=min(WIDEST, next_power_of_two(-(-config.prior_channels // colours))),
            units=min(64, next_power_of_two(-(-config.head_channels // colours))),
            levels=next_power_of_two(config.levels),
        )


def round_up(number: int, step: int) -> int:
    """The smallest multiple of ``step`` that is at least ``number``."""
    return -(-number // step) * step


def whole(parts: list[Tensor]) -> Tensor:
    """The matrices ``[inputs_≤g, outputs_g]`` of all groups as one matrix, padded with zeros."""
    return torch.cat([fit(part, len(parts[-1]), part.shape[1]) for part in parts], dim=1)


def windows(kernel: Layer) -> Tensor:
    """A kernel ``[O, I, rows, columns]`` as a matrix for each row, ``[rows, columns·I, O]``."""
    return kernel.weight.permute(2, 3, 1, 0).flatten(1, 2)


@dataclass(frozen=True)
class TritonWeights:
    """The weights of a prior in the layout of the kernels, whose files give the shapes.

    Attributes:
        packed: the weights by colour groups.
        tiles: the tile sizes.
        operand: the dtype of all weights except biases and the first layers.
        vertical: arguments of ``vertical_row`` by name.
        horizontal: those of ``horizontal_row``.
        bounds: on the activations, in fp16.
    """

    packed: PackedPrior
    tiles: Tiles
    operand: torch.dtype
    vertical: dict[str, Tensor]
    horizontal: dict[str, Tensor]
    bounds: Bounds | None


def lay_out_vertical(packed: PackedPrior, tiles: Tiles) -> dict[str, Tensor]:
    """The weights of the kernel ``vertical_row``."""
    blocks, features = packed.blocks, packed.config.prior_channels
    outputs = round_up(features, tiles.half)
    first = windows(packed.first_vertical)

    def halves(matrix: Tensor) -> Tensor:
        """``[…, inputs, 2C]`` with the halves of the gate separated and padded."""
        split = torch.stack(matrix.split(features, dim=-1), dim=-2)
        return fit(split, round_up(split.shape[-3], IN), 2, outputs)

    def layer(block: PackedBlock) -> Tensor:
        return torch.cat([halves(windows(block.vertical)).flatten(0, 1), halves(block.conditional)])

    def link(block: PackedBlock) -> Tensor:
        parts = block.link.weight.tensor_split([2 * features])
        return torch.cat([fit(part, round_up(len(part), IN), 2 * outputs) for part in parts])

    return {
        "first": fit(first, round_up(first.shape[1], IN), outputs),
        "first_bias": fit(packed.first_vertical.bias, outputs),
        "weight": torch.stack([layer(block) for block in blocks]),
        "bias": fit(torch.stack([b.vertical.bias.view(2, -1) for b in blocks]), outputs),
        "link": torch.stack([link(block) for block in blocks]),
        "link_bias": fit(torch.stack([b.link.bias for b in blocks]), 2 * outputs),
    }


def lay_out_horizontal(packed: PackedPrior, tiles: Tiles) -> dict[str, Tensor]:
    """The weights of the kernel ``horizontal_row``."""
    config, blocks, groups = packed.config, packed.blocks, packed.features.ranges
    features, stack = config.prior_channels, torch.stack
    group = round_up(-(-features // config.channels), tiles.group)
    outputs = round_up(features, tiles.half)
    units = round_up(-(-config.head_channels // config.channels), tiles.units)
    # The kernel reads the pixels to the left pixel by pixel, not colour by colour.
    left = packed.first_left.weight.view(config.channels, config.first_reach, features)
    first = torch.cat([left.transpose(0, 1).flatten(0, 1), whole(packed.first_own)])
    centres = [whole(block.centre) for block in blocks]
    mixes = [whole([mix.weight for mix in block.mix]) for block in blocks]
    mix_biases = stack([torch.cat([mix.bias for mix in block.mix]) for block in blocks])

    def own_gates(matrix: Tensor, part: slice) -> Tensor:
        own = matrix[part, 2 * part.start : 2 * part.stop]
        return stack([fit(half, group, group) for half in own.chunk(2, dim=1)])

    def by_group(matrices: list[Tensor], size: int) -> Tensor:
        return stack([stack([fit(m[part], group, size) for part in groups]) for m in matrices])

    return {
        "first": stack(
            [
                fit(first[:, part], round_up((config.first_reach + 1) * config.channels, IN), group)
                for part in groups
            ]
        ),
        "first_bias": stack([fit(packed.first_left.bias[part], group) for part in groups]),
        "taps": fit(packed.taps, round_up(packed.taps.shape[1], IN), 2 * outputs),
        "centre": stack([stack([own_gates(m, part) for part in groups]) for m in centres]),
        "mix": stack([stack([fit(m[g, g], group, group) for g in groups]) for m in mixes]),
        "mix_bias": fit(mix_biases, outputs),
        "later_centre": by_group(centres, 2 * outputs),
        "later_mix": by_group(mixes, outputs),
        "hidden_weight": stack(
            [fit(h.weight, round_up(features, IN), units) for h in packed.hidden]
        ),
        "hidden_bias": stack([fit(h.bias, units) for h in packed.hidden]),
        "output": stack(
            [fit(o.weight, round_up(config.head_channels, IN), tiles.levels) for o in packed.output]
        ),
        "output_bias": stack([fit(o.bias, tiles.levels) for o in packed.output]),
    }
