"""What a sampler of the prior cannot avoid, counted, and how long that takes at a machine's best.

The bound of an image is the sum of its parts'. The vertical stack of a row is a matrix product:
its multiply-adds over the peak. The horizontal stack and the head of a pixel wait for the pixel
before, so their weights are read anew for each pixel, but once for a whole batch: the longer of
their bytes over the cache's bandwidth, divided by the batch, and of their multiply-adds over the
peak. So one image alone is bound by bandwidth, a large batch by arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from prsr.config import PRSRConfig
from prsr.engines.packing import PackedPrior

PARTS = ("vertical", "horizontal", "head")

EXP_MULTIPLY_ADDS = 9
"""Of one exponential: two reduce the argument, a polynomial of degree 6 and a product scale it."""


@dataclass(frozen=True)
class Part:
    """What one pixel of one image needs of a part of the prior.

    Attributes:
        multiply_adds: one for each weight that is not masked.
        bytes: of weights and biases in fp32.
    """

    multiply_adds: int
    bytes: int


@dataclass(frozen=True)
class Limits:
    """What a machine can do.

    Attributes:
        peak: floating-point operations a second, two for a multiply-add.
        bandwidth: bytes a second, of a working set as large as what a pixel streams.
    """

    peak: float
    bandwidth: float

    def arithmetic(self, multiply_adds: float) -> float:
        """Seconds for so many multiply-adds."""
        return 2 * multiply_adds / self.peak


def needed(packed: PackedPrior) -> dict[str, Part]:
    """What a pixel needs of each of ``PARTS``; SPEC, section 3."""
    blocks = packed.blocks
    vertical = [packed.first_vertical.weight]
    vertical += [layer.weight for block in blocks for layer in (block.vertical, block.link)]
    vertical += [block.conditional for block in blocks]
    horizontal = [packed.first_left.weight, *packed.first_own, packed.taps]
    horizontal += [matrix for block in blocks for matrix in block.centre]
    mixes = [mix for block in blocks for mix in block.mix]
    head = [*packed.hidden, *packed.output]
    return {
        "vertical": part(vertical, [packed.first_vertical.bias]),
        "horizontal": part(
            [*horizontal, *(mix.weight for mix in mixes)],
            [packed.first_left.bias, *(mix.bias for mix in mixes)],
        ),
        "head": part([layer.weight for layer in head], [layer.bias for layer in head]),
    }


def part(weights: Iterable[Tensor], biases: Iterable[Tensor]) -> Part:
    """The count of a part that is made of these."""
    count = sum(weight.numel() for weight in weights)
    return Part(count, 4 * (count + sum(bias.numel() for bias in biases)))


def streamed_bytes(parts: dict[str, Part]) -> int:
    """Of the weights that are read anew for every pixel."""
    return parts["horizontal"].bytes + parts["head"].bytes


def bounds(parts: dict[str, Part], limits: Limits, pixels: int, batch: int) -> dict[str, float]:
    """Seconds an image of each part, for images of so many pixels drawn ``batch`` at a time."""
    seconds = {name: limits.arithmetic(parts[name].multiply_adds) for name in PARTS}
    for name in ("horizontal", "head"):
        streaming = parts[name].bytes / limits.bandwidth / batch
        seconds[name] = max(seconds[name], streaming)
    return {name: pixels * value for name, value in seconds.items()}


def draw_bound(config: PRSRConfig, limits: Limits, pixels: int) -> float:
    """Seconds an image for the exponentials alone that its draws take: K for each sub-pixel."""
    return pixels * limits.arithmetic(EXP_MULTIPLY_ADDS * config.levels * config.channels)
