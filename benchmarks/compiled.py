"""The comparator ``compiled``: the engine ``torch`` with its pixel under ``torch.compile``.

This is what a careful user of PyTorch can achieve. A pixel with all its colours is one pure
function of tensors, so that x and y are not compiled in and one graph serves the whole image.
On a CPU, ``cpp_wrapper`` calls the kernels from C++ instead of Python; on a GPU, ``benchmarks.gpu``
captures it as a CUDA graph. The vertical stack, large convolutions once per row, stays eager.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from prsr.engines import registry
from prsr.engines.base import draw
from prsr.engines.grouped_weights import PackedPrior
from prsr.engines.torch import State, TorchEngine, vertical_row
from prsr.models.layers import gate
from prsr.models.networks import PriorNetwork, to_network_input

Pixel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class CompiledEngine(TorchEngine):
    """Compiles at the first pixel of each batch size, which takes about half a minute."""

    name = "compiled"

    @override
    def pack(self, prior: PriorNetwork, precision: str) -> PackedPrior:
        packed = super().pack(prior, precision)
        on_cpu = packed.taps.device.type == "cpu"
        self.pixel: Pixel = torch.compile(
            pixel_of(packed), fullgraph=True, dynamic=False, options={"cpp_wrapper": on_cpu}
        )
        return packed

    @override
    def row(self, state: State, y: int) -> None:
        vertical_row(state, y)
        conditioning = state.job.logits[:, :, :, y].permute(3, 2, 0, 1).contiguous()
        for x in range(state.job.image.shape[3]):
            self.draw_pixel(state, y, x, conditioning[x])

    def draw_pixel(self, state: State, y: int, x: int, conditioning: Tensor) -> None:
        """Draw every colour of the pixel (y, x); ``conditioning`` is ``[D, N, K]``, its logits."""
        job, config = state.job, state.packed.config
        p, p0 = config.reach, config.first_reach
        levels, features = self.pixel(
            state.above[x],
            state.horizontal[:, :, x : x + p].flatten(2),
            state.values[:, :, p0 + y, x : x + p0].flatten(1),
            conditioning,
            job.noise[:, y, x],
            job.temperature,
        )
        job.image[:, :, y, x] = levels
        state.values[:, :, p0 + y, p0 + x] = to_network_input(levels, config.levels)
        state.horizontal[:, :, p + x] = features


def register() -> None:
    """Register the engine, so that ``prsr.Sampler`` finds it by name."""
    registry.ENGINES = (*registry.ENGINES, CompiledEngine())


def pixel_of(packed: PackedPrior) -> Pixel:
    """The function that draws one pixel of every image of a batch with these weights.

    Its arguments are the output of the vertical stack ``[L, N, 2C]``, each block's input at the
    pixels to the left ``[L, N, p·C]``, their values ``[N, D·p0]``, the conditioning logits
    ``[D, N, K]``, the noise ``[N, D]`` and the temperature ``[N]``. It returns the levels
    ``uint8 [N, D]`` and each block's input at the pixel ``[L, N, C]``.
    """
    config = packed.config

    def pixel(
        above: Tensor,
        window: Tensor,
        left: Tensor,
        conditioning: Tensor,
        noise: Tensor,
        temperature: Tensor,
    ) -> tuple[Tensor, Tensor]:
        given = torch.baddbmm(above, window, packed.taps)
        first = torch.addmm(packed.first_left.bias, left, packed.first_left.weight)
        # Per layer: values of the colours so far.
        inputs: list[list[Tensor]] = [[] for _ in range(config.prior_layers + 1)]
        gated: list[list[Tensor]] = [[] for _ in packed.blocks]
        hidden: list[Tensor] = []
        levels: list[Tensor] = []
        for colour in range(config.channels):
            group = packed.features.ranges[colour]
            gates = packed.features.gate_ranges[colour]
            h = first[:, group]
            if levels:
                h = (
                    h
                    + to_network_input(torch.stack(levels, 1), config.levels)
                    @ packed.first_own[colour]
                )
            inputs[0].append(h)
            for layer, block in enumerate(packed.blocks):
                seen = torch.cat(inputs[layer], 1)
                preactivations = torch.addmm(given[layer, :, gates], seen, block.centre[colour])
                gated[layer].append(gate(preactivations))
                mix = block.mix[colour]
                h = h + torch.addmm(mix.bias, torch.cat(gated[layer], 1), mix.weight)
                inputs[layer + 1].append(h)
            units, output = packed.hidden[colour], packed.output[colour]
            seen = torch.cat(inputs[-1], 1)
            hidden.append(torch.addmm(units.bias, seen, units.weight).relu())
            logits = torch.addmm(output.bias, torch.cat(hidden, 1), output.weight)
            levels.append(draw(logits + conditioning[colour], noise[:, colour], temperature))
        features = torch.stack([torch.cat(groups, 1) for groups in inputs[:-1]])
        return torch.stack(levels, 1).to(torch.uint8), features

    return pixel
