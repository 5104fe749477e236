"""The engine ``torch``: cached sampling in plain PyTorch, on any device.

The vertical stack of a row depends only on the rows above and is computed at once. The horizontal
stack proceeds pixel by pixel and colour by colour and reads the cached activations of the pixels to
the left, so each multiply-add of the network is computed once. The method is that of Ramachandran
et al., *Fast generation for convolutional autoregressive models* (arXiv 1704.06001), applied to
this model's stacks and masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from prsr.config import PRSRConfig
from prsr.engines.base import Engine, Job, Probe, draw
from prsr.engines.effective_weights import plain_copy
from prsr.engines.grouped_weights import PackedPrior, pack_prior
from prsr.models.layers import gate
from prsr.models.networks import PriorNetwork, to_network_input


@dataclass(frozen=True)
class Step:
    """Views of the state that one block reads and writes for one colour group at the current pixel.

    Attributes:
        seen: the input of the block up to and including the group, ``[N, C_≤g]``.
        own: the group's part of it, ``[N, C_g]``.
        given: pre-activations without the contribution of the pixel itself, ``[N, 2·C_g]``.
        gated: the output of the gate, ``[N, C_g]``.
        gated_seen: the outputs of the gate up to and including the group, ``[N, C_≤g]``.
        result: the input of the next block, ``[N, C_g]``.
    """

    seen: Tensor
    own: Tensor
    given: Tensor
    gated: Tensor
    gated_seen: Tensor
    result: Tensor


class State:
    """The caches of one job; features are in packed order, borders are zero.

    Attributes:
        values: the image as the network sees it, padded by p0 on three sides:
            ``[N, D, p0 + H, p0 + W + p0]``.
        vertical: input of each block on the last p + 1 rows, ``L × [N, C, p + 1, p + W + p]``.
        above: contribution of the vertical stack to the horizontal one on this row,
            ``[W, L, N, 2C]``.
        horizontal: input of each block on this row, ``[L, N, p + W, C]``.
        pixel: input of each block, and of the head, at this pixel, ``[L + 1, N, C]``.
        given: pre-activations at this pixel without its own contribution, ``[L, N, 2C]``.
        hidden: hidden units of the head at this pixel, ``[N, M]``.
        steps: views for each colour and block, ``D × L``.
    """

    def __init__(self, packed: PackedPrior, job: Job) -> None:
        config = packed.config
        n, channels, height, width = job.image.shape
        features, layers = config.prior_channels, config.prior_layers
        p, p0 = config.reach, config.first_reach
        zeros = job.logits.new_zeros
        self.packed = packed
        self.job = job
        self.values = zeros(n, channels, p0 + height, p0 + width + p0)
        self.vertical = [zeros(n, features, p + 1, p + width + p) for _ in range(layers)]
        self.above = zeros(width, layers, n, 2 * features)
        self.horizontal = zeros(layers, n, p + width, features)
        self.pixel = zeros(layers + 1, n, features)
        self.given = zeros(layers, n, 2 * features)
        self.hidden = zeros(n, config.head_channels)
        gated = zeros(layers, n, features)
        # Created once: at batch 1, creating a view takes as long as the arithmetic on it.
        self.steps = [
            [
                Step(
                    seen=self.pixel[layer, :, : group.stop],
                    own=self.pixel[layer, :, group],
                    given=self.given[layer, :, gates],
                    gated=gated[layer, :, group],
                    gated_seen=gated[layer, :, : group.stop],
                    result=self.pixel[layer + 1, :, group],
                )
                for layer in range(layers)
            ]
            for group, gates in zip(
                packed.features.ranges, packed.features.gate_ranges, strict=True
            )
        ]


class TorchEngine(Engine):
    """A cached sampler in plain PyTorch."""

    name = "torch"

    @override
    def reasons(self, config: PRSRConfig, device: torch.device, precision: str) -> list[str]:
        return [] if precision == "fp32" else [f"it computes in fp32 only, not in {precision}"]

    @override
    def pack(self, prior: PriorNetwork, precision: str) -> PackedPrior:
        return pack_prior(plain_copy(prior))

    @override
    def start(self, packed: PackedPrior, job: Job) -> State:
        return State(packed, job)

    @override
    def row(self, state: State, y: int) -> None:
        vertical_row(state, y)
        conditioning = state.job.logits[:, :, :, y].permute(3, 2, 0, 1).contiguous()
        for x in range(state.job.image.shape[3]):
            horizontal_pixel(state, y, x, conditioning[x])

    @override
    def probe(self, state: State, layer: int) -> Probe:
        p = state.packed.config.reach
        width = state.job.image.shape[3]
        natural = state.packed.features.order.argsort()
        vertical = state.vertical[layer][:, natural, -1, p : p + width]
        horizontal = state.horizontal[layer, :, p:].transpose(1, 2)[:, natural]
        return Probe(vertical, horizontal)


def vertical_row(state: State, y: int) -> None:
    """Compute the vertical stack of row y and its contribution ``state.above``."""
    packed = state.packed
    p, p0 = packed.config.reach, packed.config.first_reach
    width = state.job.image.shape[3]
    features = state.job.features[:, :, y]
    v = F.conv2d(
        state.values[:, :, y : y + p0], packed.first_vertical.weight, packed.first_vertical.bias
    )[:, :, 0]
    for index, (block, rows) in enumerate(zip(packed.blocks, state.vertical, strict=True)):
        rows[:, :, :-1] = rows[:, :, 1:].clone()
        rows[:, :, -1, p : p + width] = v
        a = F.conv2d(rows, block.vertical.weight, block.vertical.bias)[:, :, 0]
        a = a + block.conditional.T @ features
        linked = torch.cat([a, features], dim=1).permute(2, 0, 1)
        state.above[:, index] = linked @ block.link.weight + block.link.bias
        v = gate(a)


def horizontal_pixel(state: State, y: int, x: int, conditioning: Tensor) -> None:
    """Draw every colour of the pixel (y, x); ``conditioning`` is ``[D, N, K]``, its logits."""
    packed, job = state.packed, state.job
    config = packed.config
    p, p0 = config.reach, config.first_reach
    # The pixels to the left, all layers at once: independent of the colours of this pixel.
    window = state.horizontal[:, :, x : x + p].flatten(2)
    torch.baddbmm(state.above[x], window, packed.taps, out=state.given)
    left = state.values[:, :, p0 + y, x : x + p0].flatten(1)
    first = packed.first_left
    torch.addmm(first.bias, left, first.weight, out=state.pixel[0])
    own = state.values[:, :, p0 + y, p0 + x]
    for colour in range(config.channels):
        logits = colour_logits(state, colour, own[:, :colour]) + conditioning[colour]
        value = draw(logits, job.noise[:, y, x, colour], job.temperature).to(torch.uint8)
        place = job.image[:, colour, y, x]
        if job.mask is not None:
            value = torch.where(job.mask[:, colour, y, x], place, value)
        place.copy_(value)
        own[:, colour] = to_network_input(value, config.levels)
    state.horizontal[:, :, p + x] = state.pixel[:-1]


def colour_logits(state: State, colour: int, earlier: Tensor) -> Tensor:
    """The sequential part of one sub-pixel: blocks, then head.

    Args:
        state: ``pixel`` and ``hidden`` are updated for the group g of this colour.
        colour: g.
        earlier: the pixel's colours before g as the network sees them, ``[N, g]``.

    Returns:
        The prior's logits, ``[N, K]``.
    """
    packed = state.packed
    group, units = packed.features.ranges[colour], packed.units.ranges[colour]
    state.pixel[0, :, group] += earlier @ packed.first_own[colour]
    width = group.stop - group.start
    for block, step in zip(packed.blocks, state.steps[colour], strict=True):
        preactivations = torch.addmm(step.given, step.seen, block.centre[colour])
        first, second = preactivations[:, :width], preactivations[:, width:]
        torch.mul(first.tanh_(), second.sigmoid_(), out=step.gated)
        mix = block.mix[colour]
        mixed = torch.addmm(mix.bias, step.gated_seen, mix.weight)
        torch.add(step.own, mixed, out=step.result)
    hidden, output = packed.hidden[colour], packed.output[colour]
    seen = state.pixel[-1, :, : group.stop]
    state.hidden[:, units] = torch.addmm(hidden.bias, seen, hidden.weight).relu_()
    return torch.addmm(output.bias, state.hidden[:, : units.stop], output.weight)
