"""The engine ``triton``: the fused kernels of ``kernels/``, on any GPU that Triton supports.

Each row takes two kernel launches, queued asynchronously. With ``TRITON_INTERPRET=1`` the same
kernels run on the CPU; that is slow and meant for tests.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from prsr.config import PRSRConfig
from prsr.engines.base import Engine, Job, Probe
from prsr.engines.effective_weights import plain_copy
from prsr.engines.fp16_range import check_features, check_fp16
from prsr.engines.grouped_weights import fit, pack_prior
from prsr.engines.triton_layout import (
    IN,
    OPERANDS,
    Tiles,
    TritonWeights,
    lay_out_horizontal,
    lay_out_vertical,
    next_power_of_two,
    round_up,
)
from prsr.models.networks import PriorNetwork
from prsr.utils.argument_checks import check_finite

SHARING = {torch.float32: (4, 8), torch.float16: (4, 16), torch.bfloat16: (4, 16)}
"""Images per program of the vertical and the horizontal kernel for large batches, by dtype of the
weights. The horizontal kernel takes sixteen, the rows of a tensor-core product, or in fp32 eight,
whose sums fit the registers."""


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels on the CPU; does not import Triton."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


class State:
    """The caches of one job on its device, and the last row drawn.

    Attributes:
        together: images per program of each kernel.
        vertical: arguments of ``vertical_row`` by name; its file gives their shapes.
        horizontal: those of ``horizontal_row``.
    """

    def __init__(self, weights: TritonWeights, job: Job, together: tuple[int, int]) -> None:
        config = weights.packed.config
        n, channels, height, width = job.image.shape
        features, layers = config.prior_channels, config.prior_layers
        p, p0 = config.reach, config.first_reach
        device = job.image.device

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        values = zeros(n, p0 + height, p0 + width + p0, channels)
        above = zeros(n, layers, width, 2 * features)
        self.weights = weights
        self.job = job
        self.y = -1
        self.together = together
        self.vertical = {
            "values": values,
            "vertical": zeros(n, layers, p + 1, p + width + p, features, dtype=weights.operand),
            "gates": zeros(n, 2, width, 2 * features, dtype=weights.operand),
            "above": above,
            # The features of a pixel are adjacent, so that reads are coalesced.
            "features": fit(
                job.features.permute(0, 2, 3, 1).to(weights.operand),
                round_up(config.gate_inputs, IN),
            ).contiguous(),
        }
        self.horizontal = {
            "image": job.image,
            "known": job.image if job.mask is None else job.mask.contiguous(),
            "values": values,
            "above": above,
            "horizontal": zeros(n, layers + 1, p + width, features, dtype=weights.operand),
            "given": zeros(n, layers, 3 * features),
            "gated": zeros(n, layers, weights.horizontal["mix"].shape[-1], dtype=weights.operand),
            "hidden": zeros(n, config.head_channels, dtype=weights.operand),
            # No copy for logits in this memory order, such as those of prsr's own networks.
            "conditioning": job.logits.permute(0, 3, 4, 2, 1).contiguous(),
            "noise": job.noise.contiguous(),
            "temperature": job.temperature.contiguous(),
        }


class TritonEngine(Engine):
    """Fused Triton kernels, for GPUs."""

    name = "triton"
    device_type = "cuda"

    @override
    def reasons(self, config: PRSRConfig, device: torch.device, precision: str) -> list[str]:
        if find_spec("triton") is None:
            return ["Triton is not installed; torch's GPU builds include it"]
        reasons = []
        wanted = "cpu" if interpreted() else "cuda"
        if device.type != wanted:
            where = "in Triton's interpreter, on the CPU" if interpreted() else "on GPUs"
            reasons.append(f"it runs {where}, but the model is on {device}")
        else:
            import triton

            if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 5):
                reasons.append(
                    f"it requires Triton 3.5 (torch 2.9) or newer, not {triton.__version__}"
                )
        return reasons

    @override
    def pack(self, prior: PriorNetwork, precision: str) -> TritonWeights:
        packed = pack_prior(plain_copy(prior))
        bounds = check_fp16(packed) if precision == "fp16" else None
        operand = OPERANDS[precision]
        tiles = Tiles.of(packed.config)
        sides = lay_out_vertical(packed, tiles), lay_out_horizontal(packed, tiles)
        for side in sides:
            for name, weight in side.items():
                if weight.numel() and "first" not in name and "bias" not in name:
                    side[name] = weight.to(operand)
                    check_finite(side[name], f"the prior's weights in {precision}")
        return TritonWeights(packed, tiles, operand, *sides, bounds)

    @override
    def start(self, packed: TritonWeights, job: Job) -> State:
        check_features(packed.bounds, job.features)
        levels = packed.packed.config.levels
        return State(packed, job, together(job.image, levels, packed.operand))

    @override
    def row(self, state: State, y: int) -> None:
        with torch.cuda.device_of(state.job.image):
            for launch in launches(state, y):
                launch.kernel[(launch.programs,)](**launch.arguments)
        state.y = y

    @override
    def probe(self, state: State, layer: int) -> Probe:
        config, width = state.weights.packed.config, state.job.image.shape[3]
        p = config.reach
        natural = state.weights.packed.features.order.argsort()
        kept = state.vertical["vertical"][:, layer, state.y % (p + 1), p : p + width]
        horizontal = state.horizontal["horizontal"][:, layer, p:]
        return Probe(*(side[..., natural].transpose(1, 2).float() for side in (kept, horizontal)))


def together(image: Tensor, levels: int, operand: torch.dtype) -> tuple[int, int]:
    """Images of ``[N, D, H, W]`` per program of each kernel.

    One image per program has the lowest latency. If there are more images than concurrent programs
    (one fills the registers of a multiprocessor), several images share the loads of weights, unless
    the logits of several are too large for 32-bit offsets.
    """
    if interpreted():
        programs = 2
    else:
        programs = torch.cuda.get_device_properties(image.device).multi_processor_count
    sharing = SHARING[operand]
    if len(image) <= programs or max(sharing) * image[0].numel() * levels >= 2**31:
        return 1, 1
    return sharing


class Launch(NamedTuple):
    """A kernel, the number of programs, and the arguments by name."""

    kernel: Any
    programs: int
    arguments: dict[str, Any]


def launches(state: State, y: int) -> list[Launch]:
    """The launches that draw row y, in order."""
    # Imported here, because it requires Triton and takes time.
    from prsr.kernels.horizontal_row import horizontal_row
    from prsr.kernels.vertical_row import vertical_row

    weights, tiles = state.weights, state.weights.tiles
    config = weights.packed.config
    n, _, height, width = state.job.image.shape
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
    positions = min(64, next_power_of_two(rows * width))
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
    vertical = state.vertical | weights.vertical | both | vertical
    horizontal = state.horizontal | weights.horizontal | both | horizontal
    return [
        Launch(vertical_row, -(-n // rows), vertical),
        Launch(horizontal_row, -(-n // pixels), horizontal),
    ]
