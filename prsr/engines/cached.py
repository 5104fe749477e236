"""The engine ``torch``: every activation cached, in plain PyTorch, on any device.

A row's vertical stack is computed at once, for it sees only rows above; the horizontal stack goes
pixel by pixel and colour by colour, reads what it cached of the pixels to the left, and computes
each multiply-add of the network once. The idea is that of Ramachandran et al., *Fast generation
for convolutional autoregressive models* (arXiv 1704.06001), with this model's stacks and masks.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from prsr.config import PRSRConfig
from prsr.engines.base import Engine, Job, Probe, draw
from prsr.engines.packing import Packed, pack_prior
from prsr.layers import gate
from prsr.model import PriorNetwork, to_network


class State:
    """The caches of one job; features in the order of the packing, borders zero.

    Attributes:
        values: the picture as the network sees it, p0 wider on three sides:
            ``[N, D, p0 + H, p0 + W + p0]``.
        vertical: input of each block on the last p + 1 rows, ``L × [N, C, p + 1, p + W + p]``.
        above: what the vertical stack adds to the horizontal one on this row, ``[W, L, N, 2C]``.
        horizontal: input of each block, and of the head, on this row, ``[L + 1, N, p + W, C]``.
        gated: of each block at this pixel, ``[L, N, C]``.
        hidden: of the head at this pixel, ``[N, M]``.
    """

    def __init__(self, packed: Packed, job: Job) -> None:
        config = packed.config
        n, channels, height, width = job.picture.shape
        features, layers = config.prior_channels, config.prior_layers
        p, p0 = config.reach, config.first_reach
        zeros = job.conditioning.new_zeros
        self.packed = packed
        self.job = job
        self.values = zeros(n, channels, p0 + height, p0 + width + p0)
        self.vertical = [zeros(n, features, p + 1, p + width + p) for _ in range(layers)]
        self.above = zeros(width, layers, n, 2 * features)
        self.horizontal = zeros(layers + 1, n, p + width, features)
        self.gated = zeros(layers, n, features)
        self.hidden = zeros(n, config.head_channels)


class TorchEngine(Engine):
    """A careful cached sampler, as a good user of PyTorch would write it."""

    name = "torch"

    @override
    def reasons(self, config: PRSRConfig, device: torch.device, precision: str) -> list[str]:
        return [] if precision == "fp32" else [f"it computes in fp32 only, not in {precision}"]

    @override
    def pack(self, prior: PriorNetwork, precision: str) -> Packed:
        return pack_prior(copy.deepcopy(prior).float())

    @override
    def start(self, packed: Packed, job: Job) -> State:
        return State(packed, job)

    @override
    def row(self, state: State, y: int) -> None:
        vertical_row(state, y)
        conditioning = state.job.conditioning[:, :, :, y].permute(3, 2, 0, 1).contiguous()
        for x in range(state.job.picture.shape[3]):
            horizontal_pixel(state, y, x, conditioning[x])

    @override
    def probe(self, state: State, layer: int) -> Probe:
        p = state.packed.config.reach
        width = state.job.picture.shape[3]
        natural = state.packed.features.order.argsort()
        vertical = state.vertical[layer][:, natural, -1, p : p + width]
        horizontal = state.horizontal[layer, :, p:].transpose(1, 2)[:, natural]
        return Probe(vertical, horizontal)


def vertical_row(state: State, y: int) -> None:
    """The vertical stack on row y, and what it adds to the horizontal one: ``state.above``."""
    packed = state.packed
    p, p0 = packed.config.reach, packed.config.first_reach
    width = state.job.picture.shape[3]
    v = F.conv2d(
        state.values[:, :, y : y + p0], packed.first_vertical.weight, packed.first_vertical.bias
    )[:, :, 0]
    for index, (block, rows) in enumerate(zip(packed.blocks, state.vertical, strict=True)):
        rows[:, :, :-1] = rows[:, :, 1:].clone()
        rows[:, :, -1, p : p + width] = v
        a = F.conv2d(rows, block.vertical.weight, block.vertical.bias)[:, :, 0]
        state.above[:, index] = a.permute(2, 0, 1) @ block.link.weight + block.link.bias
        v = gate(a)


def horizontal_pixel(state: State, y: int, x: int, conditioning: Tensor) -> None:
    """Draw every colour of the pixel (y, x); ``conditioning`` is ``[D, N, K]``, its logits."""
    packed, job = state.packed, state.job
    config = packed.config
    p, p0 = config.reach, config.first_reach
    # Of everything to the left, all layers at once; it waits for no colour of this pixel.
    window = state.horizontal[:-1, :, x : x + p].flatten(2)
    preactivations = torch.baddbmm(state.above[x], window, packed.taps)
    pixel = state.horizontal[:, :, p + x]
    left = state.values[:, :, p0 + y, x : x + p0].flatten(1)
    pixel[0] = torch.addmm(packed.first_left.bias, left, packed.first_left.weight)
    own = state.values[:, :, p0 + y, p0 + x]
    for colour in range(config.channels):
        logits = colour_logits(state, colour, own[:, :colour], pixel, preactivations)
        value = draw(logits + conditioning[colour], job.noise[:, y, x, colour], job.temperature)
        place = job.picture[:, colour, y, x]
        drawn = value.to(torch.uint8)
        place.copy_(
            drawn if job.mask is None else torch.where(job.mask[:, colour, y, x], place, drawn)
        )
        own[:, colour] = to_network(place, config.levels)


def colour_logits(
    state: State, colour: int, earlier: Tensor, pixel: Tensor, preactivations: Tensor
) -> Tensor:
    """The chain that must run in sequence for one sub-pixel: blocks, then head.

    Args:
        state: its ``gated`` and ``hidden`` are filled for this colour.
        colour: g.
        earlier: the pixel's colours before g as the network sees them, ``[N, g]``.
        pixel: features at the pixel, ``[L + 1, N, C]``, filled here for group g.
        preactivations: what is known of them without this pixel, ``[L, N, 2C]``.

    Returns:
        The prior's logits, ``[N, K]``.
    """
    packed = state.packed
    group = packed.features.ranges[colour]
    gates = packed.features.gate_ranges[colour]
    pixel[0, :, group] += earlier @ packed.first_own[colour]
    for index, block in enumerate(packed.blocks):
        seen = pixel[index, :, : group.stop]
        preactivation = torch.addmm(preactivations[index, :, gates], seen, block.centre[colour])
        state.gated[index, :, group] = gate(preactivation)
        mix = block.mix[colour]
        mixed = torch.addmm(mix.bias, state.gated[index, :, : group.stop], mix.weight)
        pixel[index + 1, :, group] = seen[:, group] + mixed
    units = packed.units.ranges[colour]
    hidden = packed.hidden[colour]
    state.hidden[:, units] = torch.addmm(
        hidden.bias, pixel[-1, :, : group.stop], hidden.weight
    ).relu_()
    output = packed.output[colour]
    return torch.addmm(output.bias, state.hidden[:, : units.stop], output.weight)
