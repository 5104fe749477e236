"""The prior's weights, reordered so that every mask is a prefix.

Features are sorted by colour group, so that a group is a contiguous range and group g reads the
features from 0 to the end of g. The 2C pre-activations of a horizontal layer are also one range per
group, which holds both halves of the gate; those of a vertical layer, which has no masks between
groups, are first all of one half, then all of the other.

Letters as in :class:`prsr.PRSRConfig`; C_g is the number of features of group g, C_≤g that of all
groups up to and including g; F is the number of conditioning features that gated blocks read, 0
without conditional gates. Matrices are ``[inputs, outputs]``. All tensors are float32, on the
device of the prior.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prsr.config import PRSRConfig
from prsr.models.layers import GatedBlock, RowConvolution, colour_groups
from prsr.models.networks import PriorNetwork


class Grouping:
    """The order of features by colour group.

    Attributes:
        order: the network's index of the feature at each position, ``int64 [features]``.
        gates: the same for the 2C pre-activations of a horizontal layer, ``int64 [2·features]``.
        ranges: the positions of each group.
    """

    def __init__(self, features: int, channels: int, device: torch.device) -> None:
        groups = colour_groups(features, channels)
        ends = accumulate(torch.bincount(groups, minlength=channels).tolist(), initial=0)
        self.order = groups.argsort(stable=True).to(device)
        self.ranges = [slice(*pair) for pair in pairwise(ends)]
        halves = self.order, features + self.order
        self.gates = torch.cat([half[part] for part in self.ranges for half in halves])

    @property
    def sizes(self) -> list[int]:
        """Features of each group."""
        return [part.stop - part.start for part in self.ranges]

    @property
    def gate_ranges(self) -> list[slice]:
        """The positions of each group among the pre-activations, twice as wide."""
        return [slice(2 * part.start, 2 * part.stop) for part in self.ranges]


@dataclass(frozen=True)
class Layer:
    """A matrix or kernel and its bias."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class PackedBlock:
    """One gated block.

    Attributes:
        vertical: ``[2C, C, p + 1, k]``, a convolution kernel.
        conditional: ``[F, 2C]``: the conditional gates of the vertical layer.
        link: ``[2C + F, 2C]``: reads the vertical pre-activations, then the conditioning features
            for the horizontal layer's conditional gates; its bias includes that of the horizontal
            layer.
        centre: for each group, ``[C_≤g, 2·C_g]``: the horizontal layer's tap of the pixel itself.
        mix: for each group, ``[C_≤g, C_g]``.
    """

    vertical: Layer
    conditional: Tensor
    link: Layer
    centre: list[Tensor]
    mix: list[Layer]


@dataclass(frozen=True)
class PackedPrior:
    """All weights of a prior, by colour groups.

    Attributes:
        features: the order of the C features.
        units: the order of the M hidden units of the head.
        first_vertical: ``[C, D, p0, k0]``, a convolution kernel.
        first_left: ``[D·p0, C]``: the pixels to the left, colour by colour, left to right.
        first_own: for each group g, ``[g, C_g]``: the earlier colours of the same pixel.
        blocks: the L gated blocks.
        taps: ``[L, p·C, 2C]``: the horizontal layers' pixels to the left, left to right.
        hidden: for each group, ``[C_≤g, M_g]``.
        output: for each colour, ``[M_≤g, K]``.
    """

    config: PRSRConfig
    features: Grouping
    units: Grouping
    first_vertical: Layer
    first_left: Layer
    first_own: list[Tensor]
    blocks: list[PackedBlock]
    taps: Tensor
    hidden: list[Layer]
    output: list[Layer]


def by_group(matrix: Tensor, inputs: list[slice], outputs: list[slice]) -> list[Tensor]:
    """Split ``[outputs, inputs]`` into the part of each group, ``[inputs_≤g, outputs_g]``."""
    return [
        matrix[rows, : columns.stop].T.contiguous()
        for rows, columns in zip(outputs, inputs, strict=True)
    ]


def pack_pointwise(layer: RowConvolution, inputs: Grouping, outputs: Grouping) -> list[Layer]:
    """A masked 1×1 convolution, group by group."""
    matrix = layer.masked_weight()[..., 0, 0][outputs.order][:, inputs.order]
    bias = cast(Tensor, layer.bias)[outputs.order]
    return [
        Layer(weight, bias[part])
        for weight, part in zip(
            by_group(matrix, inputs.ranges, outputs.ranges), outputs.ranges, strict=True
        )
    ]


def pack_block(block: GatedBlock, features: Grouping) -> tuple[PackedBlock, Tensor]:
    """One gated block, and its part of the taps to the left, ``[p·C, 2C]``."""
    order, gates = features.order, features.gates
    halves = torch.cat([order, len(order) + order])
    vertical, link, horizontal = block.vertical, block.link, block.horizontal
    row = horizontal.masked_weight()[:, :, 0][gates][:, order]
    bias = cast(Tensor, link.bias) + cast(Tensor, horizontal.bias)
    none = vertical.weight.new_zeros(2 * len(order), 0)
    v, h = (
        none if gates_of is None else gates_of.weight[..., 0, 0]
        for gates_of in (block.conditional_vertical, block.conditional_horizontal)
    )
    linked = torch.cat([link.weight[..., 0, 0][:, halves], h], dim=1)[gates]
    packed = PackedBlock(
        vertical=Layer(vertical.weight[halves][:, order], cast(Tensor, vertical.bias)[halves]),
        conditional=v[halves].T.contiguous(),
        link=Layer(linked.T.contiguous(), bias[gates]),
        centre=by_group(row[..., -1], features.ranges, features.gate_ranges),
        mix=pack_pointwise(block.mix, features, features),
    )
    return packed, row[..., :-1].permute(2, 1, 0).flatten(0, 1)


def operand_weights(packed: PackedPrior) -> Iterator[Tensor]:
    """The weights that reduced precisions round: all but those of the first layers."""
    yield packed.taps
    for block in packed.blocks:
        yield from (block.vertical.weight, block.conditional, block.link.weight, *block.centre)
        yield from (mix.weight for mix in block.mix)
    yield from (layer.weight for layer in (*packed.hidden, *packed.output))


@torch.no_grad()
def pack_prior(prior: PriorNetwork) -> PackedPrior:
    """Copy and reorder the weights of ``prior``."""
    config = prior.config
    device = next(prior.parameters()).device
    features, units, colours, outputs = (
        Grouping(count, config.channels, device)
        for count in (
            config.prior_channels,
            config.head_channels,
            config.channels,
            config.levels * config.channels,
        )
    )
    first = prior.first_horizontal
    row = first.masked_weight()[features.order][:, :, 0]
    packed = [pack_block(cast(GatedBlock, block), features) for block in prior.blocks]
    vertical = prior.first_vertical
    head: list[nn.Module] = list(prior.head)
    return PackedPrior(
        config=config,
        features=features,
        units=units,
        first_vertical=Layer(
            vertical.weight[features.order], cast(Tensor, vertical.bias)[features.order]
        ),
        first_left=Layer(
            row[..., :-1].flatten(1).T.contiguous(), cast(Tensor, first.bias)[features.order]
        ),
        # Mask A is strict: compared with mask B, group g does not see its own colour, the last row.
        first_own=[
            matrix[:-1] for matrix in by_group(row[..., -1], colours.ranges, features.ranges)
        ],
        blocks=[block for block, _ in packed],
        taps=torch.stack([taps for _, taps in packed]),
        hidden=pack_pointwise(cast(RowConvolution, head[0]), features, units),
        output=pack_pointwise(cast(RowConvolution, head[2]), units, outputs),
    )


def fit(tensor: Tensor, *sizes: int) -> Tensor:
    """Zero-pad the last dimensions of the tensor to these sizes."""
    added = [size - old for size, old in zip(sizes, tensor.shape[-len(sizes) :], strict=True)]
    return F.pad(tensor, [side for more in reversed(added) for side in (0, more)])
