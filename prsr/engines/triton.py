"""The engine ``triton``: the fused kernels of ``kernels/``, on any GPU that Triton knows.

A row is two launches, which the host queues without waiting for any. Under ``TRITON_INTERPRET=1``
the same kernels run on the CPU, slowly: to test them, not to use them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from prsr.checks import check_finite
from prsr.config import PRSRConfig
from prsr.engines.base import Engine, Job, Probe
from prsr.engines.effective import plain_copy
from prsr.engines.packing import Layer, Packed, PackedBlock, pack_prior
from prsr.engines.ranges import check_fp16
from prsr.model import PriorNetwork

IN = 32  # inputs that a product takes at a time
SMALLEST = 16  # side of a product
WIDEST = 64  # features of a colour that registers can hold

OPERANDS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""The type of all weights but biases and those of the first layers, by precision."""

SHARING = {torch.float32: (4, 8), torch.float16: (4, 16), torch.bfloat16: (4, 16)}
"""Pictures that a program of each kernel takes where there are many, by the type of the weights:
of the horizontal one sixteen, the rows of a tensor core, or in fp32 the eight whose sums it can
hold."""


def interpreted() -> bool:
    """Whether kernels are to run in Triton's interpreter, on the CPU; told without importing it."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def power(number: int) -> int:
    """The smallest power of two that is not below it, and that a product may have as a side."""
    return max(SMALLEST, 1 << (number - 1).bit_length())


@dataclass(frozen=True)
class Tiles:
    """Sides of the products, and so what weights are padded to; powers of two.

    Attributes:
        half: features of a layer taken at a time; both halves of its gates are twice as many.
        group: features of one colour, or of more than registers hold a part.
        units: hidden units of the head taken at a time.
        levels: of a colour value.
    """

    half: int
    group: int
    units: int
    levels: int

    @classmethod
    def of(cls, config: PRSRConfig) -> Tiles:
        """What suits a configuration."""
        colours = config.channels
        return cls(
            half=min(64, power(config.prior_channels)),
            group=min(WIDEST, power(-(-config.prior_channels // colours))),
            units=min(64, power(-(-config.head_channels // colours))),
            levels=power(config.levels),
        )


def up(number: int, step: int) -> int:
    """The smallest multiple of ``step`` that is not below the number."""
    return -(-number // step) * step


def fit(tensor: Tensor, *sizes: int) -> Tensor:
    """The tensor with zeros up to these sizes of its last dimensions."""
    added = [size - old for size, old in zip(sizes, tensor.shape[-len(sizes) :], strict=True)]
    return F.pad(tensor, [side for more in reversed(added) for side in (0, more)])


def whole(parts: list[Tensor]) -> Tensor:
    """What each group reads, ``[inputs_≤g, outputs_g]`` for each, as one matrix with zeros."""
    return torch.cat([fit(part, len(parts[-1]), part.shape[1]) for part in parts], dim=1)


def windows(kernel: Layer) -> Tensor:
    """``[O, I, rows, columns]`` as a product for each row, ``[rows, columns·I, O]``."""
    return kernel.weight.permute(2, 3, 1, 0).flatten(1, 2)


@dataclass(frozen=True)
class Laid:
    """A prior as the kernels read it; their files say what is in it and how it is laid.

    Attributes:
        packed: the same by colour groups.
        tiles: what they are padded to.
        operand: the type of all weights but biases and those of the first layers.
        vertical: arguments of ``vertical_row`` by name.
        horizontal: likewise of ``horizontal_row``.
    """

    packed: Packed
    tiles: Tiles
    operand: torch.dtype
    vertical: dict[str, Tensor]
    horizontal: dict[str, Tensor]


def lay_out_vertical(packed: Packed, tiles: Tiles) -> dict[str, Tensor]:
    """The weights of the kernel ``vertical_row``."""
    blocks, features = packed.blocks, packed.config.prior_channels
    outputs = up(features, tiles.half)
    first = windows(packed.first_vertical)

    def halves(matrix: Tensor) -> Tensor:
        """``[…, inputs, 2C]`` with the halves of the gate apart and padded."""
        split = torch.stack(matrix.split(features, dim=-1), dim=-2)
        return fit(split, up(split.shape[-3], IN), 2, outputs)

    def layer(block: PackedBlock) -> Tensor:
        return torch.cat([halves(windows(block.vertical)).flatten(0, 1), halves(block.conditional)])

    def link(block: PackedBlock) -> Tensor:
        parts = block.link.weight.tensor_split([2 * features])
        return torch.cat([fit(part, up(len(part), IN), 2 * outputs) for part in parts])

    return {
        "first": fit(first, up(first.shape[1], IN), outputs),
        "first_bias": fit(packed.first_vertical.bias, outputs),
        "weight": torch.stack([layer(block) for block in blocks]),
        "bias": fit(torch.stack([b.vertical.bias.view(2, -1) for b in blocks]), outputs),
        "link": torch.stack([link(block) for block in blocks]),
        "link_bias": fit(torch.stack([b.link.bias for b in blocks]), 2 * outputs),
    }


def lay_out_horizontal(packed: Packed, tiles: Tiles) -> dict[str, Tensor]:
    """The weights of the kernel ``horizontal_row``."""
    config, blocks, groups = packed.config, packed.blocks, packed.features.ranges
    features, stack = config.prior_channels, torch.stack
    group = up(-(-features // config.channels), tiles.group)
    outputs = up(features, tiles.half)
    units = up(-(-config.head_channels // config.channels), tiles.units)
    # Here the pixels to the left come pixel by pixel, not colour by colour.
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
                fit(first[:, part], up((config.first_reach + 1) * config.channels, IN), group)
                for part in groups
            ]
        ),
        "first_bias": stack([fit(packed.first_left.bias[part], group) for part in groups]),
        "taps": fit(packed.taps, up(packed.taps.shape[1], IN), 2 * outputs),
        "centre": stack([stack([own_gates(m, part) for part in groups]) for m in centres]),
        "mix": stack([stack([fit(m[g, g], group, group) for g in groups]) for m in mixes]),
        "mix_bias": fit(mix_biases, outputs),
        "later_centre": by_group(centres, 2 * outputs),
        "later_mix": by_group(mixes, outputs),
        "hidden_weight": stack([fit(h.weight, up(features, IN), units) for h in packed.hidden]),
        "hidden_bias": stack([fit(h.bias, units) for h in packed.hidden]),
        "output": stack(
            [fit(o.weight, up(config.head_channels, IN), tiles.levels) for o in packed.output]
        ),
        "output_bias": stack([fit(o.bias, tiles.levels) for o in packed.output]),
    }


class State:
    """The caches of one job on its device, and the row drawn last.

    Attributes:
        together: how many pictures a program of each kernel takes.
        vertical: arguments of ``vertical_row`` by name, in the shapes that its file gives.
        horizontal: likewise of ``horizontal_row``.
    """

    def __init__(self, laid: Laid, job: Job, together: tuple[int, int]) -> None:
        config = laid.packed.config
        n, channels, height, width = job.picture.shape
        features, layers = config.prior_channels, config.prior_layers
        p, p0 = config.reach, config.first_reach
        device = job.picture.device

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        values = zeros(n, p0 + height, p0 + width + p0, channels)
        above = zeros(n, layers, width, 2 * features)
        self.laid = laid
        self.job = job
        self.y = -1
        self.together = together
        self.vertical = {
            "values": values,
            "vertical": zeros(n, layers, p + 1, p + width + p, features, dtype=laid.operand),
            "gates": zeros(n, 2, width, 2 * features, dtype=laid.operand),
            "above": above,
            # Adjacent in memory for each pixel, and so read whole.
            "features": fit(
                job.features.permute(0, 2, 3, 1).to(laid.operand), up(config.gate_inputs, IN)
            ).contiguous(),
        }
        self.horizontal = {
            "picture": job.picture,
            "known": job.picture if job.mask is None else job.mask.contiguous(),
            "values": values,
            "above": above,
            "horizontal": zeros(n, layers + 1, p + width, features, dtype=laid.operand),
            "given": zeros(n, layers, 3 * features),
            "gated": zeros(n, layers, laid.horizontal["mix"].shape[-1], dtype=laid.operand),
            "hidden": zeros(n, config.head_channels, dtype=laid.operand),
            # No copy of logits that were made in this order, as those of our own networks are.
            "conditioning": job.conditioning.permute(0, 3, 4, 2, 1).contiguous(),
            "noise": job.noise.contiguous(),
            "temperature": job.temperature.contiguous(),
        }


class TritonEngine(Engine):
    """Fused Triton kernels: on GPUs, portable and fast."""

    name = "triton"
    device_type = "cuda"

    @override
    def reasons(self, config: PRSRConfig, device: torch.device, precision: str) -> list[str]:
        if find_spec("triton") is None:
            return ["Triton is not installed; it comes with torch's builds for GPUs"]
        reasons = []
        wanted = "cpu" if interpreted() else "cuda"
        if device.type != wanted:
            where = "in Triton's interpreter, on the CPU" if interpreted() else "on GPUs"
            reasons.append(f"it runs {where}, but the model lies on {device}")
        else:
            import triton

            if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 5):
                reasons.append(f"it takes Triton 3.5, torch 2.9's, not {triton.__version__}")
        return reasons

    @override
    def pack(self, prior: PriorNetwork, precision: str) -> Laid:
        packed = pack_prior(plain_copy(prior))
        if precision == "fp16":
            check_fp16(packed)
        operand = OPERANDS[precision]
        tiles = Tiles.of(packed.config)
        sides = lay_out_vertical(packed, tiles), lay_out_horizontal(packed, tiles)
        for side in sides:
            for name, weight in side.items():
                if weight.numel() and "first" not in name and "bias" not in name:
                    side[name] = weight.to(operand)
                    check_finite(side[name], f"the prior's weights in {precision}")
        return Laid(packed, tiles, operand, *sides)

    @override
    def start(self, packed: Laid, job: Job) -> State:
        levels = packed.packed.config.levels
        return State(packed, job, together(job.picture, levels, packed.operand))

    @override
    def row(self, state: State, y: int) -> None:
        with torch.cuda.device_of(state.job.picture):
            for launch in launches(state, y):
                launch.kernel[(launch.programs,)](**launch.arguments)
        state.y = y

    @override
    def probe(self, state: State, layer: int) -> Probe:
        config, width = state.laid.packed.config, state.job.picture.shape[3]
        p = config.reach
        natural = state.laid.packed.features.order.argsort()
        kept = state.vertical["vertical"][:, layer, state.y % (p + 1), p : p + width]
        horizontal = state.horizontal["horizontal"][:, layer, p:]
        return Probe(*(side[..., natural].transpose(1, 2).float() for side in (kept, horizontal)))


def together(picture: Tensor, levels: int, operand: torch.dtype) -> tuple[int, int]:
    """How many of ``[N, D, H, W]`` a program of each kernel takes: enough programs come first.

    Alone, a picture is drawn soonest; where there are more than programs that run at once (one
    fills a multiprocessor's registers), some share the weights that are read. Pictures so large
    that logits of several have no place in 32 bits stay alone.
    """
    if interpreted():
        programs = 2
    else:
        programs = torch.cuda.get_device_properties(picture.device).multi_processor_count
    sharing = SHARING[operand]
    if len(picture) <= programs or max(sharing) * picture[0].numel() * levels >= 2**31:
        return 1, 1
    return sharing


class Launch(NamedTuple):
    """A kernel, in how many programs, and its arguments by name."""

    kernel: Any
    programs: int
    arguments: dict[str, Any]


def launches(state: State, y: int) -> list[Launch]:
    """What draws row y, in order."""
    # Imported here, for it takes Triton and time.
    from prsr.kernels.horizontal import horizontal_row
    from prsr.kernels.vertical import vertical_row

    laid, tiles = state.laid, state.laid.tiles
    config = laid.packed.config
    n, _, height, width = state.job.picture.shape
    both: dict[str, Any] = {
        "n": n,
        "y": y,
        "height": height,
        "width": width,
        "D": config.channels,
        "C": config.prior_channels,
        "L": config.prior_layers,
        "P": config.reach,
        "P0": config.first_reach,
        "HALF": tiles.half,
        "IN": IN,
    }
    rows, pixels = state.together
    positions = min(64, power(rows * width))
    vertical = {"F": config.gate_inputs, "IMAGES": rows, "POSITIONS": positions}
    horizontal = {
        "K": config.levels,
        "M": config.head_channels,
        "IMAGES": pixels,
        "GROUP": tiles.group,
        "UNITS": tiles.units,
        "LEVELS": tiles.levels,
        "MASKED": state.job.mask is not None,
    }
    return [
        Launch(vertical_row, -(-n // rows), state.vertical | laid.vertical | both | vertical),
        Launch(
            horizontal_row, -(-n // pixels), state.horizontal | laid.horizontal | both | horizontal
        ),
    ]
