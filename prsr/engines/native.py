"""The engine ``cpu``: the C++ kernels of ``csrc/``, which cache everything and use every lane.

Python keeps the memory and checks it, C++ computes: one call draws one row of every picture, and
what lives on from row to row is in plain tensors. The extension knows nothing of torch.
"""

from __future__ import annotations

import copy
import math
import os
from dataclasses import dataclass
from importlib import import_module
from itertools import accumulate
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from prsr.checks import check_finite
from prsr.config import PRSRConfig
from prsr.engines.base import Engine, Job, Probe
from prsr.engines.packing import Layer, Packed, pack_prior
from prsr.model import PriorNetwork

_native: ModuleType | None
try:
    _native = import_module("prsr._native")
except ModuleNotFoundError:
    _native = None
    _absence = (
        "its extension was not built: it takes a C++ compiler (apt install g++) when prsr is "
        "installed, and PRSR_BUILD_NATIVE=1 pip install … then says what stands in the way"
    )
except ImportError as error:
    _native = None
    _absence = f"its extension does not load: {error}"

INSTRUCTION_SET = "PRSR_INSTRUCTION_SET"
"""The environment variable that forces one of :func:`instruction_sets`."""

PARTS = ("vertical", "horizontal", "head", "draw")
"""What the time of a row goes into, in the order of ``State.seconds``."""

LINE = 16  # floats in a line of 64 bytes
BLOCK = 64  # outputs whose packed weights lie side by side


def instruction_sets() -> list[str]:
    """What the extension was built for and this machine has, the best one last."""
    return [] if _native is None else list(_native.instruction_sets())


def chosen_instruction_set() -> str:
    """The best one here, or the one that ``PRSR_INSTRUCTION_SET`` asks for.

    Raises:
        ValueError: that one is not to be had here.
    """
    names = instruction_sets()
    wanted = os.environ.get(INSTRUCTION_SET) or names[-1]
    if wanted not in names:
        raise ValueError(
            f"{INSTRUCTION_SET} must be one of {', '.join(names)} on this machine, got {wanted!r}"
        )
    return wanted


def aligned_zeros(*shape: int) -> Tensor:
    """Zeros from a line of 64 bytes on."""
    size = math.prod(shape)
    memory = torch.zeros(size + LINE, dtype=torch.float32, device="cpu")
    start = -memory.data_ptr() // 4 % LINE
    return memory[start : start + size].view(shape)


@dataclass(frozen=True)
class Laid:
    """A prior as ``csrc/engine.cpp`` reads it.

    Attributes:
        packed: the same by colour groups.
        weights: every matrix and bias behind one another, each from a line on, ``float32``.
        offsets: where each begins, ``int64``.
        numbers: D, K, C, L, p, p0, M, and 1 if the head's weights are bfloat16.
        instruction_set: of the kernels that read them.
    """

    packed: Packed
    weights: Tensor
    offsets: Tensor
    numbers: list[int]
    instruction_set: str


def blocks(matrix: Tensor) -> Tensor:
    """``[inputs, outputs]`` as ``csrc/product.h`` reads it, flat.

    Block by block of 64 outputs: ``[inputs, 64]``, the last one as wide as what is left rounded up
    to 16, with zeros.
    """
    padded = F.pad(matrix, (0, -matrix.shape[1] % LINE))
    return torch.cat([block.flatten() for block in padded.split(BLOCK, dim=1)])


def halves(matrix: Tensor) -> Tensor:
    """:func:`blocks` in bfloat16, two in the place of a float."""
    return blocks(matrix).bfloat16().view(torch.float32)


def layer(weight: Tensor, bias: Tensor) -> list[Tensor]:
    """A matrix ``[inputs, outputs]`` and its bias, ready to be laid out."""
    return [blocks(weight), bias]


def convolution(kernel: Layer) -> list[Tensor]:
    """A kernel ``[outputs, C, rows, columns]``: inputs row by row, pixel by pixel."""
    return layer(kernel.weight.permute(2, 3, 1, 0).flatten(0, 2), kernel.bias)


def lay_out(packed: Packed, precision: str, instruction_set: str) -> Laid:
    """All weights in the order in which ``csrc/engine.cpp`` asks for them."""
    config = packed.config
    # Here the pixels to the left come pixel by pixel, not colour by colour.
    left = packed.first_left.weight.view(config.channels, config.first_reach, -1)
    parts = convolution(packed.first_vertical)
    parts += layer(left.transpose(0, 1).flatten(0, 1), packed.first_left.bias)
    parts += map(blocks, packed.first_own)
    for block, taps in zip(packed.blocks, packed.taps, strict=True):
        parts += convolution(block.vertical) + layer(block.link.weight, block.link.bias)
        parts += [blocks(taps), *map(blocks, block.centre)]
        parts += [part for mix in block.mix for part in layer(mix.weight, mix.bias)]
    half = precision == "bf16"
    for head in (packed.hidden, packed.output):
        for group in head:
            parts += [(halves if half else blocks)(group.weight), group.bias]
    offsets = list(accumulate((-(-part.numel() // LINE) * LINE for part in parts), initial=0))
    weights = aligned_zeros(offsets[-1])
    for part, offset in zip(parts, offsets, strict=False):
        weights[offset : offset + part.numel()] = part
    numbers = [config.channels, config.levels, config.prior_channels, config.prior_layers]
    numbers += [config.reach, config.first_reach, config.head_channels, int(half)]
    check_finite(weights, f"the prior's weights in {precision}")
    places = torch.tensor(offsets[:-1], dtype=torch.int64, device="cpu")
    return Laid(packed, weights, places, numbers, instruction_set)


def cache_shapes(numbers: list[int], picture: torch.Size) -> dict[str, tuple[int, ...]]:
    """The caches of ``csrc/engine.h``, ``float32``, for pictures of that size."""
    channels, _, features, layers, p, p0, *_ = numbers
    n, _, height, width = picture
    return {
        "values": (n, p0 + height, p0 + width + p0, channels),
        "vertical": (n, layers, p + 1, p + width + p, features),
        "above": (layers, width, n, 2 * features),
        "ahead": (n, layers * width * 2 * features + 1),
        "horizontal": (layers + 1, p + width, n, features),
    }


# Not torch.library.custom_op: its first call imports the compiler, a second of waiting.
_library = torch.library.Library("prsr", "DEF")
_library.define(
    "draw_row(Tensor(a!) picture, Tensor(b!) values, Tensor(c!) vertical, Tensor(d!) above, "
    "Tensor(e!) ahead, Tensor(f!) horizontal, Tensor weights, Tensor offsets, "
    "Tensor conditioning, Tensor noise, Tensor temperature, Tensor? mask, Tensor(g!)? seconds, "
    "int[] numbers, str instruction_set, int y) -> ()"
)


@torch.library.impl(_library, "draw_row", "CPU")
def _draw_row(
    picture: Tensor,
    values: Tensor,
    vertical: Tensor,
    above: Tensor,
    ahead: Tensor,
    horizontal: Tensor,
    weights: Tensor,
    offsets: Tensor,
    conditioning: Tensor,
    noise: Tensor,
    temperature: Tensor,
    mask: Tensor | None,
    seconds: Tensor | None,
    numbers: list[int],
    instruction_set: str,
    y: int,
) -> None:
    """Draw row ``y`` in place. C++ gets addresses, so whatever they stand for is checked here."""
    channels, levels, _, layers, *_ = numbers
    n, _, height, width = picture.shape
    shapes = cache_shapes(numbers, picture.shape)
    float32 = torch.float32
    wanted = {
        "weights": (weights, float32, tuple(weights.shape)),
        "offsets": (offsets, torch.int64, (4 + 5 * channels + layers * (5 + 3 * channels),)),
        "values": (values, float32, shapes["values"]),
        "vertical": (vertical, float32, shapes["vertical"]),
        "above": (above, float32, shapes["above"]),
        "ahead": (ahead, float32, shapes["ahead"]),
        "horizontal": (horizontal, float32, shapes["horizontal"]),
        "conditioning": (conditioning, float32, (n, height, width, channels, levels)),
        "noise": (noise, float32, (n, height, width, channels)),
        "temperature": (temperature, float32, (n,)),
        "mask": (mask, torch.bool, (n, channels, height, width)),
        "picture": (picture, torch.uint8, (n, channels, height, width)),
        "seconds": (seconds, torch.float64, (len(PARTS),)),
    }
    for name, (tensor, dtype, shape) in wanted.items():
        if tensor is None:
            continue
        if tensor.dtype != dtype or tuple(tensor.shape) != shape or not tensor.is_contiguous():
            raise ValueError(
                f"{name} must be a contiguous {dtype} tensor {list(shape)}, "
                f"got {tensor.dtype} {list(tensor.shape)} with strides {list(tensor.stride())}"
            )
    if weights.numel() < int(offsets[-1]) + levels:  # the last is a bias of the logits
        raise ValueError(f"weights must reach to where offsets say, got {weights.numel()}")
    if weights.data_ptr() % 64 or not 0 <= y < height:
        raise ValueError(f"weights must lie on a line of 64 bytes, and y below {height}, got {y}")
    assert _native is not None
    _native.draw_row(
        instruction_set,
        numbers,
        [n, height, width],
        [0 if tensor is None else tensor.data_ptr() for tensor, _, _ in wanted.values()],
        y,
        torch.get_num_threads(),
    )


def _draw_nothing(*tensors: object) -> None:
    """What the operator gives where tensors have no memory: nothing, as always."""


torch.library.register_fake("prsr::draw_row", _draw_nothing, lib=_library)


class State:
    """The caches of one job, and the row drawn last; features in order of the groups.

    Attributes:
        conditioning: the job's logits with the levels side by side, ``[N, H, W, D, K]``.
        seconds: for benchmarks: where each row adds the time of its :data:`PARTS`, ``float64 [4]``;
            rows are then drawn by one thread. None, as usual, asks for no time.
    """

    def __init__(self, laid: Laid, job: Job) -> None:
        self.laid = laid
        self.job = job
        # No copy of logits that were made in this order, as those of our own networks are.
        self.conditioning = job.conditioning.permute(0, 3, 4, 2, 1).contiguous()
        shapes = cache_shapes(laid.numbers, job.picture.shape)
        self.caches = {name: aligned_zeros(*shape) for name, shape in shapes.items()}
        self.seconds: Tensor | None = None
        self.y = -1


class CPUEngine(Engine):
    """Fused C++: on CPUs, the fastest."""

    name = "cpu"

    @override
    def reasons(self, config: PRSRConfig, device: torch.device, precision: str) -> list[str]:
        reasons = []
        if _native is None:
            reasons.append(_absence)
        if device.type != "cpu":
            reasons.append(f"it runs on the CPU, but the model lies on {device}")
        return reasons

    @override
    def pack(self, prior: PriorNetwork, precision: str) -> Laid:
        instruction_set = chosen_instruction_set()  # raises before there is any work
        return lay_out(pack_prior(copy.deepcopy(prior).float()), precision, instruction_set)

    @override
    def start(self, packed: Laid, job: Job) -> State:
        job.noise = job.noise.contiguous()
        job.temperature = job.temperature.contiguous()
        if job.mask is not None:
            job.mask = job.mask.contiguous()
        return State(packed, job)

    @override
    def row(self, state: State, y: int) -> None:
        job, laid = state.job, state.laid
        torch.ops.prsr.draw_row(
            job.picture,
            **state.caches,
            weights=laid.weights,
            offsets=laid.offsets,
            conditioning=state.conditioning,
            noise=job.noise,
            temperature=job.temperature,
            mask=job.mask,
            seconds=state.seconds,
            numbers=laid.numbers,
            instruction_set=laid.instruction_set,
            y=y,
        )
        state.y = y

    @override
    def probe(self, state: State, layer: int) -> Probe:
        p = state.laid.packed.config.reach
        width = state.job.picture.shape[3]
        natural = state.laid.packed.features.order.argsort()
        vertical = state.caches["vertical"][:, layer, state.y % (p + 1), p : p + width]
        horizontal = state.caches["horizontal"][layer, p:]
        return Probe(
            vertical[..., natural].transpose(1, 2), horizontal[..., natural].permute(1, 2, 0)
        )
