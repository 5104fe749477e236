"""Memory layout of a prior's weights for the CUDA kernels.

Names and shapes are those of ``csrc/cuda/arguments.h``; :mod:`prsr.engines.cuda_formats` has the
formats of operands and the layout of a step of 16 of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.engines.cuda_formats import FORMATS, STEP, TILE, Format, steps_of
from prsr.engines.fp16_range import Bounds, check_fp16, is_in_range
from prsr.engines.grouped_weights import Grouping, PackedPrior, fit

LOOK_AHEAD = {"tf32": 16, "split": 16, "fp16": 24, "bf16": 24}
"""The most features of a colour whose chain looks ahead, by format. Its weights take 5/3 of the
memory; with more features they do not fit the registers (fp32), or are read too slowly."""


def group_features(config: PRSRConfig) -> int:
    """The number of features of the largest colour group."""
    return -(-config.prior_channels // config.channels)


@dataclass(frozen=True)
class Sizes:
    """The padded sizes of a configuration, in steps.

    Attributes:
        features: E, for the C features of the vertical stack.
        condition: for the conditioning features that conditional gates read.
        group: S, for the features of a colour.
        units: U, for the hidden units of a colour.
        level_pairs: P, for the levels of a colour.
    """

    features: int
    condition: int
    group: int
    units: int
    level_pairs: int

    @classmethod
    def of(cls, config: PRSRConfig) -> Sizes:
        """The sizes for a configuration."""
        colours = config.channels
        return cls(
            features=steps_of(config.prior_channels),
            condition=steps_of(config.gate_inputs),
            group=steps_of(group_features(config)),
            units=steps_of(-(-config.head_channels // colours)),
            level_pairs=steps_of(config.levels),
        )


@dataclass(frozen=True)
class Variant:
    """Which kernels serve a model; its weights are laid out for them.

    The configuration, the weights and the precision alone decide, never the images: so an image is
    bit-identical in any batch.

    Attributes:
        config: of the model.
        vertical: the format of the vertical kernel's operands, a key of
            :data:`prsr.engines.cuda_formats.FORMATS`.
        horizontal: that of the horizontal kernel's operands.
        look_ahead: whether the chain looks ahead (``csrc/cuda/look_ahead.h``).
    """

    config: PRSRConfig
    vertical: str
    horizontal: str
    look_ahead: bool

    @classmethod
    def of(cls, config: PRSRConfig, precision: str, split: bool = True) -> Variant:
        """The kernels for a configuration.

        Args:
            config: of the model.
            precision: a key of :data:`prsr.engines.cuda_formats.PRECISIONS`.
            split: whether the weights prove that fp32 operands are in the range of fp16. Only the
                vertical kernel reads the features of conditional gates, which no weight bounds.
        """
        horizontal = ("split" if split else "tf32") if precision == "fp32" else precision
        vertical = "tf32" if precision == "fp32" and config.conditional_gates else horizontal
        look_ahead = group_features(config) <= LOOK_AHEAD[horizontal]
        return cls(config, vertical, horizontal, look_ahead)

    @property
    def sizes(self) -> Sizes:
        """The padded sizes."""
        return Sizes.of(self.config)


def padded_groups(tensor: Tensor, ranges: list[slice], size: int, dim: int) -> Tensor:
    """Zero-pad each colour group along a dimension to ``size``.

    Groups beyond the end of the tensor become zeros.
    """
    tensor = tensor.movedim(dim, -1)
    groups = [fit(tensor[..., part], size) for part in ranges]
    return torch.cat(groups, dim=-1).movedim(-1, dim)


def interleaved(halves: Tensor) -> Tensor:
    """``[…, 2, n]`` as ``[…, 2·n]``, alternating 8 elements of each half."""
    return halves.unflatten(-1, (-1, TILE)).transpose(-3, -2).flatten(-3)


@dataclass(frozen=True)
class CUDAWeights:
    """The weights of a prior in the layout of the CUDA kernels.

    Attributes:
        packed: the weights by colour groups.
        variant: the kernels that read them.
        vertical: the weights of ``VerticalRow`` by name.
        horizontal: those of ``HorizontalRow``.
        bounds: on the activations, in fp16.
    """

    packed: PackedPrior
    variant: Variant
    vertical: dict[str, Tensor]
    horizontal: dict[str, Tensor]
    bounds: Bounds | None

    @property
    def sizes(self) -> Sizes:
        """The padded sizes."""
        return self.variant.sizes

    @property
    def formats(self) -> tuple[Format, Format]:
        """The formats of the vertical and the horizontal kernel."""
        return FORMATS[self.variant.vertical], FORMATS[self.variant.horizontal]


def lay_out(
    packed: PackedPrior, precision: str, *, look_ahead: bool = True, split: bool = True
) -> CUDAWeights:
    """Convert the weights of a prior to the layout of the kernels.

    Args:
        packed: the prior's weights.
        precision: a key of :data:`prsr.engines.cuda_formats.PRECISIONS`.
        look_ahead: whether the chain may look ahead. It does if the configuration permits it and
            the products of weights are finite in the format.
        split: whether fp32 operands may be two fp16 numbers. They are if the weights prove that
            all are in the range of fp16.

    Raises:
        ValueError: a weight is not finite in that precision, or an activation might not be.
    """
    bounds = check_fp16(packed) if precision == "fp16" else None
    sizes = Sizes.of(packed.config)
    vertical = vertical_matrices(packed, sizes)
    horizontal = horizontal_matrices(packed, sizes)
    chain = chain_matrices(horizontal, sizes.group)
    of_vertical = {name: vertical[name] for name in ("gates", "link")}
    of_horizontal = {name: horizontal[name] for name in ("gates", "mix", "hidden", "output")}
    if precision == "fp32" and split:
        split = can_split(packed, [*of_vertical.values()], [*of_horizontal.values()])
    variant = Variant.of(packed.config, precision, split)
    one, other = FORMATS[variant.vertical], FORMATS[variant.horizontal]
    look_ahead &= variant.look_ahead and other.holds(chain["product"])
    variant = replace(variant, look_ahead=look_ahead)
    if not look_ahead:
        del chain["product"]
    for name, matrix in of_vertical.items():
        vertical[name] = one.weight_steps(matrix, precision)
    for name, matrix in of_horizontal.items():
        horizontal[name] = other.weight_steps(matrix, precision)
    parts = [other.weight_steps(part, precision).flatten(2, 3) for part in chain.values()]
    horizontal["chain"] = torch.cat(parts, dim=2)
    return CUDAWeights(packed, variant, vertical, horizontal, bounds)


def can_split(packed: PackedPrior, vertical: list[Tensor], horizontal: list[Tensor]) -> bool:
    """Whether all operands of these matrices, and the matrices, are in the range of fp16.

    With conditional gates, the vertical ones do not matter: their operands are never split.
    """
    bounds = Bounds.of(packed)
    needed = [bounds.horizontal, *horizontal]
    if not packed.config.conditional_gates:
        needed += [bounds.vertical, *vertical]
    return all(is_in_range(float(values.abs().max())) for values in needed)


def vertical_matrices(packed: PackedPrior, sizes: Sizes) -> dict[str, Tensor]:
    """The weights of ``VerticalRow``, fp32, padded; matrices are not yet in steps."""
    config, blocks = packed.config, packed.blocks
    features, width, inputs = config.prior_channels, STEP * sizes.features, STEP * sizes.condition

    def both_halves(tensor: Tensor) -> Tensor:
        """Reshape and pad the last dimension, 2C, to [2, 16·E]."""
        return fit(tensor.unflatten(-1, (2, features)), width)

    gates, links = [], []
    for block in blocks:
        kernel = block.vertical.weight.permute(2, 3, 1, 0)  # [p + 1, k, C, 2C]
        window = fit(kernel, width, kernel.shape[-1]).flatten(0, 2)
        condition = fit(block.conditional, inputs, 2 * features)
        gates.append(interleaved(both_halves(torch.cat([window, condition]))))
        linked = grouped_halves(block.link.weight, packed.features, sizes.group).flatten(1, 3)
        own, condition = linked[: 2 * features], linked[2 * features :]
        own = interleaved(both_halves(own.T)).T
        links.append(torch.cat([own, fit(condition, inputs, condition.shape[-1])]))
    link_outputs = torch.stack(links).unflatten(-1, (config.channels, 2, -1))
    biases = [grouped_halves(b.link.bias, packed.features, sizes.group) for b in blocks]
    first = packed.first_vertical
    return {
        "first": fit(first.weight.permute(2, 3, 1, 0).flatten(1, 2), width).contiguous(),
        "first_bias": fit(first.bias, width),
        "gates": torch.stack(gates),
        "gate_bias": torch.stack([both_halves(b.vertical.bias) for b in blocks]),
        "link": interleaved(link_outputs).flatten(-2),
        "link_bias": torch.stack(biases),
    }


def grouped_halves(tensor: Tensor, features: Grouping, group_steps: int) -> Tensor:
    """Regroup the last dimension, 2C of a horizontal layer, as ``[…, D, 2, 16·S]``."""
    parts = [
        fit(tensor[..., 2 * part.start : 2 * part.stop].unflatten(-1, (2, -1)), STEP * group_steps)
        for part in features.ranges
    ]
    return torch.stack(parts, dim=-3)


def horizontal_matrices(packed: PackedPrior, sizes: Sizes) -> dict[str, Tensor]:
    """The weights of ``HorizontalRow``, fp32, padded; matrices are not yet in steps."""
    config, blocks = packed.config, packed.blocks
    ranges, unit_ranges = packed.features.ranges, packed.units.ranges
    colours, reach, first_reach = config.channels, config.reach, config.first_reach
    group, units = STEP * sizes.group, STEP * sizes.units
    levels = STEP * sizes.level_pairs

    def stacked(groups: list[Tensor]) -> Tensor:
        return torch.stack(groups)

    gates = []
    for taps, block in zip(packed.taps, blocks, strict=True):
        left = taps.view(reach, config.prior_channels, 2 * config.prior_channels)
        left = padded_groups(left, ranges, group, 1).flatten(0, 1)
        outputs = grouped_halves(left, packed.features, sizes.group)
        of_colours = []
        for g, centre in enumerate(block.centre):
            own = padded_groups(centre, ranges, group, 0)
            halves = fit(own.unflatten(-1, (2, -1)), group)
            of_colours.append(interleaved(torch.cat([outputs[:, g], halves])))
        gates.append(stacked(of_colours))
    mixes = [
        stacked([fit(padded_groups(m.weight, ranges, group, 0), group) for m in block.mix])
        for block in blocks
    ]
    # The kernel reads the pixels to the left pixel by pixel, not colour by colour.
    left = packed.first_left.weight.view(colours, first_reach, -1).transpose(0, 1).flatten(0, 1)
    first = [
        torch.cat([fit(left[:, part], group), fit(own, colours, group)])
        for part, own in zip(ranges, packed.first_own, strict=True)
    ]
    of_levels = [padded_groups(o.weight, unit_ranges, units, 0) for o in packed.output]
    return {
        "first": stacked(first),
        "first_bias": stacked([fit(packed.first_left.bias[part], group) for part in ranges]),
        "gates": stacked(gates),
        "mix": stacked(mixes),
        "mix_bias": stacked([stacked([fit(m.bias, group) for m in b.mix]) for b in blocks]),
        "hidden": stacked(
            [fit(padded_groups(h.weight, ranges, group, 0), units) for h in packed.hidden]
        ),
        "hidden_bias": stacked([fit(h.bias, units) for h in packed.hidden]),
        "output": stacked([fit(matrix, levels) for matrix in of_levels]),
        "output_bias": stacked([fit(o.bias, levels) for o in packed.output]),
    }


def chain_matrices(horizontal: dict[str, Tensor], group: int) -> dict[str, Tensor]:
    """The parts of the gates and the mix that read a colour's own features: ``[L, D, 16·S, …]``.

    The product is that of both: the gates of a layer, after the mix of the layer below. The first
    layer's is zero.
    """
    gates, mix = horizontal["gates"], horizontal["mix"]
    left = gates.shape[2] - mix.shape[2]  # inputs of the pixels to the left
    own = [slice(STEP * group * g, STEP * group * (g + 1)) for g in range(mix.shape[1])]
    centre = torch.stack([gates[:, g, left:][:, part] for g, part in enumerate(own)], dim=1)
    own_mix = torch.stack([mix[:, g, part] for g, part in enumerate(own)], dim=1)
    product = torch.zeros_like(centre)
    product[1:] = (own_mix[:-1].double() @ centre[1:].double()).float()
    return {"centre": centre, "product": product, "mix": own_mix}
