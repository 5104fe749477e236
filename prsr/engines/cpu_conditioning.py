"""The conditioning network in C++ (``csrc/cpu/conditioning_kernel.cpp``).

The result is bit-identical for any batch and any number of threads, which PyTorch's convolutions do
not guarantee.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from threading import Lock
from typing import cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from prsr.config import PRSRConfig
from prsr.engines import native
from prsr.engines.base import LastLayer
from prsr.engines.cpu_layout import LINE, FlatWeights, blocks, by_pixels, line_up
from prsr.engines.effective_weights import HOOKS, has_global_hooks
from prsr.engines.weight_changes import Snapshot
from prsr.models.networks import ConditioningNetwork, ResNetBlock


@dataclass(frozen=True)
class PackedNetwork:
    """The packed weights of a network.

    Attributes:
        config: of the model.
        snapshot: the parameters and buffers that were packed.
        weights: in the layout that ``csrc/cpu/conditioning.cpp`` reads.
        instruction_set: of the kernels that read them.
        limit: if the features are no larger in magnitude, all logits are finite.
    """

    config: PRSRConfig
    snapshot: Snapshot
    weights: FlatWeights
    instruction_set: str
    limit: float

    def last_layer(self, inputs: Tensor) -> LastLayer:
        """The last layer for its ``inputs``, the features that :func:`compute` returns."""
        memory, outputs = self.weights.memory, self.config.channels * self.config.levels
        *_, weights, bias = self.weights.offsets.tolist()
        padded = outputs + -outputs % LINE
        return LastLayer(inputs, memory[weights:bias], memory[bias : bias + padded])


_packed: WeakKeyDictionary[nn.Module, PackedNetwork] = WeakKeyDictionary()
_lock = Lock()


def pack(network: nn.Module, config: PRSRConfig) -> PackedNetwork | None:
    """The packed weights of a network, packed again if they have changed.

    Args:
        network: the conditioning network of a model.
        config: of the model.

    Returns:
        None if :func:`compute` would not give the result of the network in evaluation mode: that
        requires prsr's own network unchanged, of the same classes and settings, without hooks,
        ``float32``, on the CPU. None also if the kernels cannot run here.
    """
    if (
        native.problem()
        or type(network) is not ConditioningNetwork
        or network.config != config
        or has_global_hooks()
    ):
        return None
    modules, patterns = list(network.modules()), patterns_of(config)
    if len(modules) != len(patterns) or not all(map(Pattern.fits, patterns, modules)):
        return None
    with _lock:
        packed = _packed.get(network)
    instruction_set = native.chosen_instruction_set()
    if (
        packed is None
        or packed.instruction_set != instruction_set
        or not packed.snapshot.matches(network)
    ):
        if not all(map(Pattern.fits_tensors, patterns, modules)):
            return None
        last = cast(nn.Conv2d, network[-1])
        packed = PackedNetwork(
            config, Snapshot(network), lay_out(network), instruction_set, limit_of_inputs(last)
        )
        with _lock:
            _packed[network] = packed
    return packed


class Pattern:
    """What one module must look like for :func:`pack`.

    Attributes:
        read: a function that returns a module's class and settings, such as strides.
        settings: the result that it must return.
        shapes: shapes and dtypes of the module's parameters and buffers.
    """

    def __init__(self, module: nn.Module) -> None:
        self.read = attrgetter("__class__", *getattr(module, "__constants__", ()))
        self.settings = self.read(module)
        self.shapes = {
            name: (tensor.shape, tensor.dtype)
            for members in (module._parameters, module._buffers)
            for name, tensor in members.items()
            if tensor is not None
        }

    def fits(self, module: nn.Module) -> bool:
        """Whether a module, apart from its tensors and children, is as its class defines it."""
        return (
            self.read(module) == self.settings
            and "forward" not in vars(module)
            and not any(vars(module)[kind] for kind in HOOKS)
        )

    def fits_tensors(self, module: nn.Module) -> bool:
        """Whether a module's own parameters and buffers have the right shapes and dtypes."""
        expected = self.shapes
        found = 0
        for members in (module._parameters, module._buffers):
            for name, tensor in members.items():
                if tensor is not None:
                    found += 1
                    if not tensor.is_cpu or expected.get(name) != (tensor.shape, tensor.dtype):
                        return False
        return found == len(expected)


@lru_cache
def patterns_of(config: PRSRConfig) -> list[Pattern]:
    """The patterns of the network's modules, in the order of ``modules()``."""
    with torch.device("meta"):
        network = ConditioningNetwork(config).float()  # whatever torch's default dtype is
    return [Pattern(module) for module in network.modules()]


def compute(
    packed: PackedNetwork, lr: Tensor, *, steps: int | None = None, with_logits: bool = True
) -> tuple[Tensor, Tensor, bool]:
    """Compute the result of a network in evaluation mode.

    Args:
        packed: its weights.
        lr: ``uint8 [N, D, h, w]``.
        steps: for tests: stop after this number of blocks and doublings; None computes all.
        with_logits: compute the last layer.

    Returns:
        Logits ``float32 [N, K, D, H, W]``, stored with the levels of a sub-pixel adjacent; features
        ``float32 [N, F, H, W]``, stored with those of a pixel adjacent, F = 0 without conditional
        gates; and whether the inputs of the last layer are so small that all logits are certainly
        finite. With ``steps`` or without logits: no logits, and all features of the layer reached.
    """
    config = packed.config
    kinds = kinds_of_steps(config)
    reached = kinds if steps is None else kinds[:steps]
    n, _, low_height, low_width = lr.shape
    scale = 2 ** reached.count(nn.ConvTranspose2d)
    height, width = scale * low_height, scale * low_width
    with_logits = with_logits and steps is None
    count = config.gate_inputs if with_logits else config.conditioning_channels
    single = torch.float32  # whatever torch's default dtype is
    features = torch.empty(n, height, width, count, dtype=single, device="cpu")
    levels = config.levels if with_logits else 0
    shape = n, height, width, config.channels, levels
    # NumPy asks the system for huge pages: page faults of a new 200 MB are a tenth of the time.
    logits = torch.from_numpy(np.empty(shape, dtype=np.float32))
    lr = lr.contiguous()
    extension = native.loaded()
    certainly_finite = extension.condition(
        packed.instruction_set,
        extension.ConditioningConfig(
            channels=config.channels,
            levels=config.levels,
            features=config.conditioning_channels,
            blocks=config.conditioning_blocks,
            doublings=config.doublings,
        ),
        extension.Weights(
            memory=packed.weights.memory.data_ptr(), offsets=packed.weights.offsets.data_ptr()
        ),
        extension.ConditioningJob(
            images=n,
            height=low_height,
            width=low_width,
            steps=len(reached),
            limit=packed.limit,
            low=lr.data_ptr(),
            features=features.data_ptr(),
            logits=logits.data_ptr(),
        ),
        torch.get_num_threads(),
    )
    return logits.permute(0, 4, 3, 1, 2), features.permute(0, 3, 1, 2), certainly_finite


def limit_of_inputs(layer: nn.Conv2d) -> float:
    """A magnitude of the inputs of a 1×1 convolution up to which no output can overflow.

    It is −1 if there is none, because a weight or bias is not finite.
    """
    most = torch.finfo(torch.float32).max / 2  # rounding errors are far smaller than the other half
    gain = float(layer.weight.detach().double().abs().sum(dim=(1, 2, 3)).max())
    left = most - float(cast(Tensor, layer.bias).detach().abs().max())
    if not (math.isfinite(gain) and left > 0):
        return -1.0
    return min(most, left / gain) if gain > 0 else most


def kinds_of_steps(config: PRSRConfig) -> list[type[nn.Module]]:
    """The classes of the blocks and doublings, in order."""
    stage: list[type[nn.Module]] = [ResNetBlock] * config.conditioning_blocks
    return [*stage, nn.ConvTranspose2d] * config.doublings + stage


@torch.no_grad()
def lay_out(network: ConditioningNetwork) -> FlatWeights:
    """All weights in the order in which ``csrc/cpu/conditioning.cpp`` reads them."""
    parts: list[Tensor] = []
    for layer in network:
        if isinstance(layer, ResNetBlock):
            first, second = (cast(nn.Conv2d, layer[i]) for i in (0, 3))
            parts += normalised(first, cast(nn.BatchNorm2d, layer[1]))
            parts += normalised(second, cast(nn.BatchNorm2d, layer[4]))
        elif isinstance(layer, nn.ConvTranspose2d):
            parts += phases(layer.weight)
            parts.append(cast(Tensor, layer.bias))
        elif isinstance(layer, nn.Conv2d):
            matrix, bias = layer.weight[..., 0, 0], cast(Tensor, layer.bias)
            if layer is network[-1]:  # the levels of a sub-pixel become adjacent
                by_level = network.config.levels, network.config.channels
                matrix = matrix.unflatten(0, by_level).transpose(0, 1).flatten(0, 1)
                bias = bias.unflatten(0, by_level).T.flatten()
            parts += [blocks(matrix.T), bias]
    return line_up(parts)


def normalised(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> list[Tensor]:
    """Fold batch normalisation into the 3×3 convolution before it: weights and bias."""
    bias, mean, variance, weight, offset = (
        cast(Tensor, tensor).double()
        for tensor in (
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
        )
    )
    factor = weight / (variance + norm.eps).sqrt()
    kernel = convolution.weight.double() * factor[:, None, None, None]
    return [blocks(by_pixels(kernel).float()), ((bias - mean) * factor + offset).float()]


def phases(kernel: Tensor) -> list[Tensor]:
    """A transposed 3×3 convolution of stride 2 and padding 1 as four small convolutions.

    Row 2y of its result reads row y with the middle row of the kernel; row 2y + 1 reads row y with
    the last row of the kernel and row y + 1 with its first. The same holds for columns.

    Args:
        kernel: ``[inputs, outputs, 3, 3]``.

    Returns:
        The weights for even rows and even columns, even rows and odd columns, odd rows and even
        columns, odd rows and odd columns.
    """
    taps = [1], [2, 0]
    small = (kernel[:, :, rows][..., columns] for rows in taps for columns in taps)
    return [blocks(by_pixels(part.transpose(0, 1))) for part in small]
