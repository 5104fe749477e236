"""Running the conditioning network, with results that do not depend on the batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from prsr.config import PRSRConfig
from prsr.engines.cpu_conditioning import compute, pack
from prsr.models.eval_mode import evaluating
from prsr.utils.argument_checks import check_finite
from prsr.utils.torch_threads import map_in_threads


class Conditioning(NamedTuple):
    """Outputs of the conditioning network, as engines read them.

    Attributes:
        logits: ``float32 [N, K, D, H, W]``; on a CPU the levels are adjacent in memory.
        features: ``float32 [N, F, H, W]``; F is 0 without conditional gates.
    """

    logits: Tensor
    features: Tensor


def condition(network: nn.Module, lr: Tensor, config: PRSRConfig) -> Conditioning:
    """Run the conditioning network in evaluation mode.

    On a CPU, prsr's own network runs in C++, with the same order of summation for every image. Any
    other network runs in PyTorch, one image at a time and one thread for each, because the order
    of summation in PyTorch's convolutions depends on the batch size and the thread count. On a GPU
    the whole batch runs at once, and rounding may differ from batch to batch.

    Args:
        network: maps ``uint8 [N, D, h, w]`` to logits ``[N, K, D, H, W]``. If the model has
            conditional gates, it is called with ``with_features=True`` and returns features
            ``[N, F, H, W]`` too.
        lr: ``uint8 [N, D, h, w]``, N ≥ 1, on the device of the network.
        config: of the model.

    Raises:
        ValueError: logits or features have the wrong shape, or are not finite.
    """
    size = [config.scale * side for side in lr.shape[2:]]

    def of(images: Tensor) -> Conditioning:
        if config.conditional_gates:
            logits, features = network(images, with_features=True)
        else:
            logits = network(images)
            features = logits.new_empty(len(images), 0, *size)
        result = Conditioning(logits.float(), features.float())
        shapes = [config.levels, config.channels, *size], [config.gate_inputs, *size]
        for name, tensor, shape in zip(result._fields, result, shapes, strict=True):
            if list(tensor.shape) != [len(images), *shape]:
                raise ValueError(
                    f"the conditioning network's {name} must be {[len(images), *shape]}, "
                    f"got {list(tensor.shape)}"
                )
            if tensor.numel():
                check_finite(tensor, f"the conditioning network's {name}")
        return result

    packed = pack(network, config) if lr.device.type == "cpu" else None
    if packed is not None:
        logits, features, finite = compute(packed, lr)
        if not finite:
            check_finite(logits, "the conditioning network's logits")
        return Conditioning(logits, features)
    with evaluating(network):
        if lr.device.type != "cpu":
            return of(lr)
        if len(lr) == 1:
            return map_in_threads(torch.no_grad()(lambda i: of(lr)), 1)[0]
        single = torch.float32  # whatever the default is
        shape = len(lr), *size, config.channels, config.levels
        memory = torch.empty(shape, dtype=single, device="cpu")
        logits = memory.permute(0, 4, 3, 1, 2)
        features = torch.empty(len(lr), config.gate_inputs, *size, dtype=single, device="cpu")

        @torch.no_grad()
        def one(i: int) -> None:
            own = of(lr[i : i + 1])
            logits[i].copy_(own.logits[0])
            features[i].copy_(own.features[0])

        map_in_threads(one, len(lr))
        return Conditioning(logits, features)
