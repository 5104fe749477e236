"""Lower bounds on the time of sampling: the work of the prior at a machine's peak rates.

The bound of an image is the sum over the parts of the prior. The vertical stack of a row is a GEMM;
its bound is multiply-adds over peak. The horizontal stack and the head of a pixel depend on the
previous pixel, so that their weights are read again for each pixel, but only once per batch; their
bound is the larger of bytes over cache bandwidth, divided by the batch size, and of multiply-adds
over peak. A single image is therefore bound by bandwidth, a large batch by arithmetic.

Weights by which hidden units that are zero would be multiplied need neither be read nor multiplied;
a second bound leaves them out (``nonzero`` below).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from prsr.config import PRSRConfig
from prsr.engines.grouped_weights import PackedPrior

PARTS = ("vertical", "horizontal", "head")

EXP_MULTIPLY_ADDS = 9
"""Per exponential: two reduce the argument, then a polynomial of degree 6 and a scaling."""


@dataclass(frozen=True)
class Part:
    """The work of a part of the prior for one pixel of one image.

    Attributes:
        multiply_adds: one for each unmasked weight.
        bytes: of weights and biases in fp32.
    """

    multiply_adds: int
    bytes: int


@dataclass(frozen=True)
class Limits:
    """The peak rates of a machine.

    Attributes:
        peak: floating-point operations per second, two per multiply-add.
        bandwidth: bytes per second, for a working set as large as the weights read per pixel.
    """

    peak: float
    bandwidth: float

    def arithmetic(self, multiply_adds: float) -> float:
        """Seconds for a number of multiply-adds at the peak."""
        return 2 * multiply_adds / self.peak


def count_work(packed: PackedPrior, nonzero: float = 1.0) -> dict[str, Part]:
    """The work of each of ``PARTS`` for one pixel; SPEC, section 3.

    Args:
        packed: the prior.
        nonzero: the share of the head's second matrix that is multiplied by hidden units other than
            zero. The rest of the matrix needs no work.
    """
    blocks = packed.blocks
    vertical = [packed.first_vertical.weight]
    vertical += [layer.weight for block in blocks for layer in (block.vertical, block.link)]
    vertical += [block.conditional for block in blocks]
    horizontal = [packed.first_left.weight, *packed.first_own, packed.taps]
    horizontal += [matrix for block in blocks for matrix in block.centre]
    mixes = [mix for block in blocks for mix in block.mix]
    hidden = part(
        [layer.weight for layer in packed.hidden], [layer.bias for layer in packed.hidden]
    )
    outputs = [layer.weight for layer in packed.output]
    output = part(
        [weight[: round(nonzero * len(weight))] for weight in outputs],
        [layer.bias for layer in packed.output],
    )
    return {
        "vertical": part(vertical, [packed.first_vertical.bias]),
        "horizontal": part(
            [*horizontal, *(mix.weight for mix in mixes)],
            [packed.first_left.bias, *(mix.bias for mix in mixes)],
        ),
        "head": Part(hidden.multiply_adds + output.multiply_adds, hidden.bytes + output.bytes),
    }


def part(weights: Iterable[Tensor], biases: Iterable[Tensor]) -> Part:
    """The work of a part with these weights and biases."""
    count = sum(weight.numel() for weight in weights)
    return Part(count, 4 * (count + sum(bias.numel() for bias in biases)))


def streamed_bytes(parts: dict[str, Part]) -> int:
    """The bytes of the weights that are read for every pixel."""
    return parts["horizontal"].bytes + parts["head"].bytes


def bounds(parts: dict[str, Part], limits: Limits, pixels: int, batch: int) -> dict[str, float]:
    """Seconds per image of each part, for images of ``pixels`` pixels in batches of ``batch``."""
    seconds = {name: limits.arithmetic(parts[name].multiply_adds) for name in PARTS}
    for name in ("horizontal", "head"):
        streaming = parts[name].bytes / limits.bandwidth / batch
        seconds[name] = max(seconds[name], streaming)
    return {name: pixels * value for name, value in seconds.items()}


def conditioning_multiply_adds(network: nn.Module, low_pixels: int) -> int:
    """Multiply-adds of the conditioning network for an image of ``low_pixels`` pixels.

    A convolution takes one for each weight and output pixel, a transposed one for each weight and
    input pixel.
    """
    count, pixels = 0, low_pixels
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            count += layer.weight.numel() * pixels
        if isinstance(layer, nn.ConvTranspose2d):
            pixels *= layer.stride[0] * layer.stride[1]
    return count


def draw_bound(config: PRSRConfig, limits: Limits, pixels: int) -> float:
    """Seconds per image for the exponentials of its draws: K per sub-pixel."""
    return pixels * limits.arithmetic(EXP_MULTIPLY_ADDS * config.levels * config.channels)
