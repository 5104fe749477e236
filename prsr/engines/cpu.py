"""The engine ``cpu``: the C++ kernels of ``csrc/cpu``, vectorised, with all activations cached.

Python allocates and checks the memory, C++ computes: one call draws some rows of every image, and
the state between rows is in plain tensors. The extension does not depend on torch.
"""

from __future__ import annotations

from itertools import chain, count

import torch
from torch import Tensor
from typing_extensions import override

from prsr.config import PRSRConfig
from prsr.engines import native
from prsr.engines.base import Engine, Job, LastLayer, Probe
from prsr.engines.cpu_layout import (
    LINE,
    CPUWeights,
    PriorConfig,
    aligned_zeros,
    bundled,
    cache_shapes,
    contiguous,
    unpaired,
)
from prsr.engines.effective_weights import plain_copy
from prsr.engines.grouped_weights import operand_weights, pack_prior
from prsr.models.networks import PriorNetwork
from prsr.utils.argument_checks import check_finite

PARTS = ("vertical", "horizontal", "head", "draw")
"""The parts of a row that are timed, in the order of ``State.seconds``."""

BUNDLE = 8  # images per bundle: where there are enough, their values are lanes of a vector


def free_namespace() -> str:
    """A namespace for the operator: ``prsr``, or another name if prsr is imported again.

    Notebooks do that; an operator cannot be defined twice, and the first may still be in use.
    """
    names = chain(["prsr"], (f"prsr_{number}" for number in count(2)))
    return next(name for name in names if not hasattr(getattr(torch.ops, name), "draw_rows"))


NAMESPACE = free_namespace()
# Not torch.library.custom_op: its first call imports the compiler, which takes a second.
_library = torch.library.Library(NAMESPACE, "DEF")
_library.define(
    "draw_rows(Tensor(a!) image, Tensor(b!) values, Tensor(c!) vertical, Tensor(d!) above, "
    "Tensor(e!) ahead, Tensor(f!) horizontal, Tensor weights, Tensor offsets, "
    "Tensor conditioning, Tensor? last_weights, Tensor? last_bias, Tensor features, "
    "Tensor noise, Tensor temperature, Tensor? mask, Tensor(g!)? seconds, "
    "int[] config, int bundle, str instruction_set, int y, int end) -> ()"
)


@torch.library.impl(_library, "draw_rows", "CPU")
def _draw_rows(
    image: Tensor,
    values: Tensor,
    vertical: Tensor,
    above: Tensor,
    ahead: Tensor,
    horizontal: Tensor,
    weights: Tensor,
    offsets: Tensor,
    conditioning: Tensor,
    last_weights: Tensor | None,
    last_bias: Tensor | None,
    features: Tensor,
    noise: Tensor,
    temperature: Tensor,
    mask: Tensor | None,
    seconds: Tensor | None,
    config: list[int],
    bundle: int,
    instruction_set: str,
    y: int,
    end: int,
) -> None:
    """Draw rows ``y`` … ``end − 1`` in place.

    ``conditioning`` is the logits, or with ``last_weights`` the input of the last layer. C++
    receives addresses only, so all tensors are checked here.
    """
    prior = PriorConfig(*config)
    channels, levels, layers = prior.channels, prior.levels, prior.layers
    of_pixel = "D, K" if last_weights is None else "inputs"
    for name, operand, axes in (
        ("image", image, "N, D, H, W"),
        ("conditioning", conditioning, f"N, H, W, {of_pixel}"),
    ):
        if operand.dim() != axes.count(",") + 1:
            raise ValueError(f"{name} must be [{axes}], got {list(operand.shape)}")
    n, _, height, width = image.shape
    if bundle not in (1, BUNDLE) or n % bundle:
        raise ValueError(
            f"bundle must be 1, or {BUNDLE} for a multiple of {BUNDLE} images, got {bundle} for {n}"
        )
    shapes = cache_shapes(prior, image.shape, bundle)
    float32 = torch.float32
    outputs = channels * levels  # of the last layer
    inputs = 0 if last_weights is None else conditioning.shape[-1]
    per_pixel = (channels, levels) if last_weights is None else (inputs,)
    fields = {
        "values": (values, float32, shapes["values"]),
        "vertical": (vertical, float32, shapes["vertical"]),
        "above": (above, float32, shapes["above"]),
        "ahead": (ahead, float32, shapes["ahead"]),
        "horizontal": (horizontal, float32, shapes["horizontal"]),
        "conditioning": (conditioning, float32, (n, height, width, *per_pixel)),
        "last_weights": (last_weights, float32, (inputs * (outputs + -outputs % LINE),)),
        "last_bias": (last_bias, float32, (outputs + -outputs % LINE,)),
        "features": (
            features,
            float32,
            (n // bundle, height, width, prior.operands(prior.gate_inputs), bundle),
        ),
        "noise": (noise, float32, (n, height, width, channels)),
        "temperature": (temperature, float32, (n,)),
        "mask": (mask, torch.bool, (n, channels, height, width)),
        "image": (image, torch.uint8, (n, channels, height, width)),
        "seconds": (seconds, torch.float64, (len(PARTS),)),
    }
    parameters = {
        "weights": (weights, float32, tuple(weights.shape)),
        "offsets": (offsets, torch.int64, (4 + 5 * channels + layers * (5 + 3 * channels),)),
    }
    for name, (tensor, dtype, shape) in (parameters | fields).items():
        if tensor is None:
            continue
        if tensor.dtype != dtype or tuple(tensor.shape) != shape or not tensor.is_contiguous():
            raise ValueError(
                f"{name} must be a contiguous {dtype} tensor {list(shape)}, "
                f"got {tensor.dtype} {list(tensor.shape)} with strides {list(tensor.stride())}"
            )
    if int(offsets[0]) or not bool((offsets.diff() >= 0).all()):
        raise ValueError(f"offsets must ascend from 0, got {offsets.tolist()}")
    if weights.numel() < int(offsets[-1]) + levels + -levels % LINE:  # the last bias
        raise ValueError(
            f"weights must extend beyond the last offset, got {weights.numel()} elements"
        )
    if weights.data_ptr() % 64:
        raise ValueError(f"weights must be aligned to 64 bytes, got address {weights.data_ptr()}")
    if (last_bias is None) != (last_weights is None):
        raise ValueError("last_bias must be given if and only if last_weights is, got one of them")
    if not 0 <= y < end <= height:
        raise ValueError(f"y must be below end, and end at most {height}, got y={y} and end={end}")
    addresses = {
        name: 0 if tensor is None else tensor.data_ptr() for name, (tensor, _, _) in fields.items()
    }
    addresses["last_features"] = 0
    if last_weights is not None:
        addresses |= {"last_features": addresses["conditioning"], "conditioning": 0}
    extension = native.loaded()
    extension.draw_rows(
        instruction_set,
        extension.PriorConfig(**prior._asdict()),
        extension.Weights(memory=weights.data_ptr(), offsets=offsets.data_ptr()),
        extension.Job(
            bundles=n // bundle,
            bundle=bundle,
            height=height,
            width=width,
            last_inputs=inputs,
            **addresses,
        ),
        y,
        end,
        torch.get_num_threads(),
    )


def _draw_nothing(*operands: object) -> None:
    """The operator for tensors without memory; called if any tensor is on the device ``meta``."""
    for tensor in operands:
        if isinstance(tensor, Tensor) and tensor.device.type != "cpu":
            raise ValueError(f"the device of every tensor must be cpu, got {tensor.device}")


torch.library.register_fake(f"{NAMESPACE}::draw_rows", _draw_nothing, lib=_library)
_operator = getattr(torch.ops, NAMESPACE).draw_rows


def conditioning_operands(job: Job, images: slice) -> dict[str, Tensor | None]:
    """The operator's arguments that give the conditioning logits of some images."""
    if isinstance(job.conditioning, LastLayer):
        last = job.conditioning
        given = contiguous(last.inputs[images].permute(0, 2, 3, 1))
        return {"conditioning": given, "last_weights": last.weights, "last_bias": last.bias}
    given = contiguous(job.conditioning[images].permute(0, 3, 4, 2, 1))
    return {"conditioning": given, "last_weights": None, "last_bias": None}


class Part:
    """Some images of a job, drawn in bundles or one by one.

    Attributes:
        bundle: images per bundle.
        caches: as :func:`cache_shapes` gives them; features are in order of the groups.
        operands: those arguments of the operator that are the same for all rows.
    """

    def __init__(self, weights: CPUWeights, job: Job, images: slice, bundle: int) -> None:
        image = job.image[images]
        flat = weights.blocks if bundle == 1 else weights.strips
        shapes = cache_shapes(weights.config, image.shape, bundle)
        self.bundle = bundle
        self.caches = {name: aligned_zeros(*shape) for name, shape in shapes.items()}
        self.operands = {
            "image": image,
            **self.caches,
            "weights": flat.memory,
            "offsets": flat.offsets,
            **conditioning_operands(job, images),
            "features": bundled(job.features[images], bundle, bool(weights.config.bf16)),
            "noise": job.noise[images].contiguous(),
            "temperature": job.temperature[images].contiguous(),
            "mask": None if job.mask is None else job.mask[images].contiguous(),
            "config": list(weights.config),
            "bundle": bundle,
            "instruction_set": weights.instruction_set,
        }


def one_bundle_each() -> int:
    """The number of images that give every thread one bundle."""
    return BUNDLE * torch.get_num_threads()


class State:
    """A job, and the last row drawn.

    All threads get the same number of whole bundles; the remaining images are drawn one by one. An
    image has the same bits either way.

    Attributes:
        parts: the images in bundles, then the others; either may be absent.
        seconds: for benchmarks: each row adds the time of its :data:`PARTS` here, ``float64 [4]``,
            and is drawn by one thread. None measures nothing.
    """

    def __init__(self, weights: CPUWeights, job: Job) -> None:
        self.weights = weights
        self.width = job.image.shape[3]
        n = len(job.image)
        bundled = n - n % one_bundle_each()
        ranges = (slice(0, bundled), BUNDLE), (slice(bundled, n), 1)
        self.parts = [Part(weights, job, *part) for part in ranges if part[0].start < part[0].stop]
        self.seconds: Tensor | None = None
        self.y = -1


class CPUEngine(Engine):
    """Fused C++ kernels: the fastest engine on CPUs."""

    name = "cpu"
    device_type = "cpu"
    computes_last_layer = True

    @override
    def reasons(self, config: PRSRConfig, device: torch.device, precision: str) -> list[str]:
        reasons = []
        if problem := native.problem():
            reasons.append(problem)
        if precision not in ("fp32", "bf16"):
            reasons.append(f"it computes in fp32 and bf16, not in {precision}")
        if device.type != "cpu":
            reasons.append(f"it runs on the CPU, but the model is on {device}")
        return reasons

    @override
    def pack(self, prior: PriorNetwork, precision: str) -> CPUWeights:
        instruction_set = native.chosen_instruction_set()  # raises before any work
        extension = native.loaded()
        packed = pack_prior(plain_copy(prior))
        if precision == "bf16":
            for weight in operand_weights(packed):
                if weight.numel():
                    check_finite(weight.bfloat16(), "the prior's weights in bf16")
        widths = tuple(extension.strips(instruction_set))
        config = PriorConfig.of(prior.config, precision)
        tiles = precision == "bf16" and extension.tiles(instruction_set)
        weights = CPUWeights(packed, config, widths, instruction_set, tiles)
        check_finite(weights.blocks.memory, f"the prior's weights in {precision}")
        return weights

    @override
    def layout(self, precision: str) -> tuple[str, ...]:
        return self.name, precision, native.chosen_instruction_set()

    @override
    def bytes_per_image(
        self, config: PRSRConfig, height: int, width: int, *, last_layer: bool = False
    ) -> int:
        # Counted for every image, although a thread computes a row of at most 32 images at a time
        # (csrc/cpu/dispatch.cpp).
        row_logits = 4 * config.levels * config.channels * width if last_layer else 0
        return super().bytes_per_image(config, height, width) + row_logits

    @override
    def images_at_once(self) -> int:
        return one_bundle_each()

    @override
    def start(self, packed: CPUWeights, job: Job) -> State:
        return State(packed, job)

    @override
    def row(self, state: State, y: int) -> None:
        self.rows(state, y, y + 1)

    @override
    def rows(self, state: State, y: int, end: int) -> None:
        for part in state.parts:
            _operator(**part.operands, seconds=state.seconds, y=y, end=end)
        state.y = end - 1

    @override
    def probe(self, state: State, layer: int) -> Probe:
        packed, config = state.weights.packed, state.weights.config
        natural, p = packed.features.order.argsort(), config.reach
        verticals, horizontals = [], []
        for part in state.parts:
            vertical = part.caches["vertical"][:, layer, state.y % (p + 1), p : p + state.width]
            horizontal = part.caches["horizontal"][:, p:, layer]
            if config.bf16:
                vertical = unpaired(vertical, [config.features])
                horizontal = unpaired(horizontal, packed.features.sizes)
            verticals.append(vertical[..., natural, :].permute(0, 3, 2, 1).flatten(0, 1))
            horizontals.append(horizontal[..., natural, :].permute(0, 3, 2, 1).flatten(0, 1))
        return Probe(torch.cat(verticals), torch.cat(horizontals))
