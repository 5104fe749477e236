"""The engine ``cuda``: the kernels of ``csrc/cuda/``, which divide the head over block clusters.

Each row takes two kernel launches, queued asynchronously. Python allocates and checks the memory
and chooses the launch parameters; the extension does not depend on torch.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from prsr.config import PRSRConfig
from prsr.engines.base import Engine, Job, Probe
from prsr.engines.cuda_formats import PRECISIONS, STEP, steps_of
from prsr.engines.cuda_layout import CUDAWeights, Variant, lay_out
from prsr.engines.cuda_plan import Card, Planner
from prsr.engines.effective_weights import plain_copy
from prsr.engines.fp16_range import check_features
from prsr.engines.grouped_weights import fit, pack_prior
from prsr.models.networks import PriorNetwork

_cuda: ModuleType | None
try:
    _cuda = import_module("prsr._cuda")
except ModuleNotFoundError:
    _cuda = None
    _absence = (
        "its extension was not built: installing prsr requires nvcc for it, and "
        "PRSR_BUILD_CUDA=1 pip install … shows what fails"
    )
except ImportError as error:
    _cuda = None
    _absence = f"its extension does not load: {error}"

OLDEST = (8, 0)
"""The minimum compute capability."""


class State:
    """The caches of one job on its device, and the last row drawn.

    Attributes:
        plan: how its images are divided.
        shared: bytes of shared memory per block of ``horizontal_row``.
        vertical: the fields of ``VerticalRow`` by name, except ``y``.
        horizontal: those of ``HorizontalRow``.
    """

    def __init__(self, weights: CUDAWeights, job: Job) -> None:
        self.weights, self.job = weights, job
        self.y = -1
        config, sizes = weights.packed.config, weights.sizes
        n, channels, height, width = job.image.shape
        numbers = {
            "images": n,
            "height": height,
            "width": width,
            "channels": channels,
            "layers": config.prior_layers,
            "reach": config.reach,
            "first_reach": config.first_reach,
            "group_steps": sizes.group,
        }
        of_horizontal = {
            "levels": config.levels,
            "unit_steps": sizes.units,
            "level_pairs": sizes.level_pairs,
        }
        assert _cuda is not None
        planner = Planner(_cuda, Card.current(_cuda), weights.variant)
        self.plan = planner.plan(n, width)
        shared = planner.shared_memory(self.plan.cluster, self.plan.tiles)
        if shared is None:
            limit = planner.card.shared_limit
            raise ValueError(f"this GPU has too little shared memory per block: {limit:,} bytes")
        self.shared = shared.size
        both = self.shared_arrays()
        self.vertical: dict[str, Any] = {
            **numbers,
            "feature_steps": sizes.features,
            "condition_steps": sizes.condition,
            "images_per_block": self.plan.images_per_block,
            **weights.vertical,
            **both,
            **self.vertical_arrays(),
        }
        self.horizontal: dict[str, Any] = {
            **numbers,
            **of_horizontal,
            "tiles": self.plan.tiles,
            "look_ahead": weights.variant.look_ahead,
            "given_offset": shared.given_offset,
            "chain_offset": shared.chain_offset,
            "hidden_offset": shared.hidden_offset,
            "output_colour": shared.output_colour,
            "output_offset": shared.output_offset,
            **weights.horizontal,
            **both,
            **self.horizontal_arrays(),
        }
        self.check()

    def zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory that is read before it is written."""
        return torch.zeros(shape, dtype=dtype, device=self.job.image.device)

    def scratch(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory that is written before it is read."""
        return torch.empty(shape, dtype=dtype, device=self.job.image.device)

    @property
    def tiles(self) -> int:
        """The number of tiles of 16 images; unused places of the last tile stay zero."""
        return steps_of(len(self.job.image))

    def shared_arrays(self) -> dict[str, Tensor]:
        """Arrays of both kernels."""
        config = self.weights.packed.config
        _, channels, height, width = self.job.image.shape
        images, p0 = STEP * self.tiles, config.first_reach
        group = STEP * self.weights.sizes.group
        return {
            "values": self.zeros(images, p0 + height, p0 + width + p0, channels),
            "above": self.zeros(images, width, config.prior_layers, channels, 2, group),
        }

    def vertical_arrays(self) -> dict[str, Tensor]:
        """Arrays of ``VerticalRow`` only."""
        config, sizes = self.weights.packed.config, self.weights.sizes
        operand, _ = self.weights.formats
        dtype, element = operand.dtype, operand.element_shape
        n, _, _, width = self.job.image.shape
        p, images = config.reach, self.plan.images_per_block
        condition = fit(self.job.features.permute(0, 2, 3, 1), STEP * sizes.condition)
        cache = (n, config.prior_layers, p + 1, p + width + p, STEP * sizes.features)
        preactivations = (-(-n // images), 2, steps_of(images * width), 2 * sizes.features)
        return {
            "cache": self.zeros(*cache, *element, dtype=dtype),
            "condition": operand.elements(condition).contiguous(),
            "preactivations": self.scratch(*preactivations, *operand.lane_shape, dtype=dtype),
        }

    def horizontal_arrays(self) -> dict[str, Tensor | None]:
        """Arrays of ``HorizontalRow`` only."""
        job, config, sizes = self.job, self.weights.packed.config, self.weights.sizes
        plan, tiles = self.plan, self.tiles
        _, operand = self.weights.formats
        dtype, lanes = operand.dtype, operand.lane_shape
        layers, p, width = config.prior_layers, config.reach, job.image.shape[3]
        steps = config.channels * sizes.group
        blocks = -(-tiles // plan.tiles) * plan.cluster
        units = (blocks, plan.tiles, config.channels * sizes.units)
        return {
            "kept": self.zeros(tiles, layers + 1, p + width, steps, *lanes, dtype=dtype),
            "gated": self.zeros(tiles, layers, steps, *lanes, dtype=dtype),
            "given": self.scratch(tiles, 2, layers, 6 * sizes.group, 32, 4),
            "residual": self.scratch(tiles, 2, 2 * sizes.group, 32, 4),
            "units": self.scratch(*units, *lanes, dtype=dtype),
            # No copy for logits in this memory order, such as those of prsr's own networks.
            "conditioning": job.logits.permute(0, 3, 4, 2, 1).contiguous(),
            "noise": job.noise.contiguous(),
            "temperature": job.temperature.contiguous(),
            "known": None if job.mask is None else job.mask.contiguous(),
            "image": job.image,
            "clocks": None,
        }

    def check(self) -> None:
        """Raise ValueError unless the kernels can read every tensor as it is."""
        device = self.job.image.device
        for name, value in {**self.vertical, **self.horizontal}.items():
            if isinstance(value, Tensor) and (value.device != device or not value.is_contiguous()):
                raise ValueError(
                    f"{name} must be contiguous on {device}, "
                    f"got strides {list(value.stride())} on {value.device}"
                )
        n, channels, height, width = self.job.image.shape
        levels = self.weights.packed.config.levels
        operand, _ = self.weights.formats
        wanted = {
            "conditioning": (torch.float32, (n, height, width, channels, levels)),
            "noise": (torch.float32, (n, height, width, channels)),
            "temperature": (torch.float32, (n,)),
            "known": (torch.bool, (n, channels, height, width)),
            "image": (torch.uint8, (n, channels, height, width)),
            "condition": (
                operand.dtype,
                (n, height, width, STEP * self.weights.sizes.condition, *operand.element_shape),
            ),
        }
        for name, (dtype, shape) in wanted.items():
            value = {**self.vertical, **self.horizontal}[name]
            if value is not None and (value.dtype != dtype or tuple(value.shape) != shape):
                raise ValueError(
                    f"{name} must be {dtype} {list(shape)}, got {value.dtype} {list(value.shape)}"
                )


def addresses(arguments: dict[str, Any]) -> dict[str, int]:
    """Replace tensors by their addresses and None by null."""
    return {
        name: value.data_ptr() if isinstance(value, Tensor) else value or 0
        for name, value in arguments.items()
    }


def stream_of(device: torch.device) -> int:
    """The address of torch's current stream; also selects torch's device in the extension."""
    assert _cuda is not None
    _cuda.use(torch.cuda.current_device())
    return torch.cuda.current_stream(device).cuda_stream


def launch_vertical(state: State, y: int) -> None:
    """Queue the vertical stack of row ``y`` on torch's current stream."""
    assert _cuda is not None
    with torch.cuda.device_of(state.job.image):
        stream = stream_of(state.job.image.device)
        row = _cuda.VerticalRow(**addresses(state.vertical), y=y)
        _cuda.launch_vertical(state.weights.variant.vertical, row, state.plan.shared_loads, stream)


def launch_horizontal(state: State, y: int) -> None:
    """Queue the horizontal stack, the head and the draws of row ``y``."""
    assert _cuda is not None
    with torch.cuda.device_of(state.job.image):
        stream = stream_of(state.job.image.device)
        row = _cuda.HorizontalRow(**addresses(state.horizontal), y=y)
        operands, cluster = state.weights.variant.horizontal, state.plan.cluster
        _cuda.launch_horizontal(operands, row, cluster, state.shared, stream)


def describe(config: PRSRConfig, device: torch.device, precision: str, images: int) -> str:
    """Which kernels and division serve such a job, and why; one sentence.

    Raises:
        RuntimeError: the CUDA runtime reports an error.
    """
    with torch.cuda.device(device):
        planner = planner_for(config, device, precision)
    return planner.describe(images, config.scale * config.low_width)


def planner_for(config: PRSRConfig, device: torch.device, precision: str) -> Planner:
    """What divides jobs on torch's current device."""
    assert _cuda is not None
    stream_of(device)
    return Planner(_cuda, Card.current(_cuda), Variant.of(config, precision))


def active_clusters(config: PRSRConfig, device: torch.device, precision: str, size: int) -> int:
    """For benchmarks: how many clusters of so many blocks, one tile each, run concurrently."""
    with torch.cuda.device(device):
        return planner_for(config, device, precision).active_clusters(size, 1)


def phases() -> list[str]:
    """For benchmarks: the elements of ``state.horizontal["clocks"]``, ``int64``, if it is set."""
    assert _cuda is not None
    return list(_cuda.phases)


def measure(device: torch.device, size: int) -> list[tuple[str, float]]:
    """For benchmarks: limits of the device (``csrc/cuda/measure.h``), using ``size`` bytes."""
    assert _cuda is not None
    scratch = torch.zeros(size, dtype=torch.uint8, device=device)
    with torch.cuda.device_of(scratch):
        return list(_cuda.measure(scratch.data_ptr(), size, stream_of(device)))


class CUDAEngine(Engine):
    """CUDA kernels: on NVIDIA GPUs."""

    name = "cuda"

    @override
    def reasons(self, config: PRSRConfig, device: torch.device, precision: str) -> list[str]:
        reasons = []
        if _cuda is None:
            reasons.append(_absence)
        if device.type != "cuda":
            reasons.append(f"it runs on NVIDIA GPUs, but the model is on {device}")
        elif torch.cuda.is_available():
            if torch.version.cuda is None:
                reasons.append("it runs on NVIDIA GPUs, but this torch is built for other GPUs")
            elif torch.cuda.get_device_capability(device) < OLDEST:
                major, minor = torch.cuda.get_device_capability(device)
                reasons.append(f"it requires compute capability 8.0 or newer, not {major}.{minor}")
        if precision not in PRECISIONS:
            reasons.append(f"it has no precision {precision}")
        return reasons

    @override
    def pack(self, prior: PriorNetwork, precision: str) -> CUDAWeights:
        return lay_out(pack_prior(plain_copy(prior)), precision)

    @override
    def start(self, packed: CUDAWeights, job: Job) -> State:
        check_features(packed.bounds, job.features)
        with torch.cuda.device_of(job.image):
            stream_of(job.image.device)
            return State(packed, job)

    @override
    def row(self, state: State, y: int) -> None:
        launch_vertical(state, y)
        launch_horizontal(state, y)
        state.y = y

    @override
    def probe(self, state: State, layer: int) -> Probe:
        config, sizes = state.weights.packed.config, state.weights.sizes
        n, _, _, width = state.job.image.shape
        p, grouping = config.reach, state.weights.packed.features
        natural = grouping.order.argsort()
        of_vertical, of_horizontal = state.weights.formats
        cache = state.vertical["cache"][:, layer, state.y % (p + 1), p : p + width]
        cache = of_vertical.values(cache)
        kept = of_horizontal.features_of(
            state.horizontal["kept"][:, layer, p:]
        )  # [tiles, W, 16, D·16·S]
        groups = kept.unflatten(-1, (config.channels, STEP * sizes.group))
        own = [groups[..., g, : r.stop - r.start] for g, r in enumerate(grouping.ranges)]
        horizontal = torch.cat(own, dim=-1).transpose(1, 2).flatten(0, 1)[:n]
        vertical = cache[..., : config.prior_channels]
        return Probe(*(side[..., natural].transpose(1, 2) for side in (vertical, horizontal)))
