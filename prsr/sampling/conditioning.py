"""Running the conditioning network, with results that do not depend on the batch."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prsr.config import PRSRConfig
from prsr.engines.base import LastLayer
from prsr.engines.cpu_conditioning import compute, pack
from prsr.models.eval_mode import evaluating
from prsr.utils.argument_checks import check_finite
from prsr.utils.torch_threads import map_in_threads


class Conditioning(NamedTuple):
    """Outputs of the conditioning network, as engines read them.

    Attributes:
        logits: ``float32 [N, K, D, H, W]``; on a CPU the levels are adjacent in memory. Or the last
            layer, which computes them.
        features: ``float32 [N, F, H, W]``; F is 0 without conditional gates.
    """

    logits: Tensor | LastLayer
    features: Tensor

    def of_images(self, images: Tensor) -> Conditioning:
        """The outputs for images with these indices, ``int64 [M]``."""
        logits, count = self.logits, self.features.shape[1]
        if isinstance(logits, LastLayer):
            return of_last_layer(replace(logits, inputs=logits.inputs[images]), count)
        return Conditioning(logits[images], self.features[images])


def of_last_layer(last: LastLayer, gate_inputs: int) -> Conditioning:
    """A last layer, and its inputs as the features of ``gate_inputs`` channels, or of none."""
    return Conditioning(last, last.inputs[:, :gate_inputs])


class Conditioner:
    """A model's conditioning network in evaluation mode.

    On a CPU, prsr's own network runs in C++, with the same order of summation for every image. Any
    other network runs in PyTorch, one image at a time and one thread for each, because the order
    of summation in PyTorch's convolutions depends on the batch size and the thread count. On a GPU
    the whole batch runs at once, and rounding may differ from batch to batch.

    Args:
        network: maps ``uint8 [N, D, h, w]`` to logits ``[N, K, D, H, W]``. If the model has
            conditional gates, it is called with ``with_features=True`` and returns features
            ``[N, F, H, W]`` too.
        config: of the model.
        device: of the network.
        last_layer: return the last layer in place of its logits where possible.

    Attributes:
        config: of the model.
        device: of the network.
        defers_logits: whether it returns the last layer in place of logits.
    """

    def __init__(
        self,
        network: nn.Module,
        config: PRSRConfig,
        device: torch.device,
        *,
        last_layer: bool = False,
    ) -> None:
        self._network, self.config, self.device = network, config, device
        self._packed = pack(network, config) if device.type == "cpu" else None
        self.defers_logits = last_layer and self._packed is not None

    def __call__(self, lr: Tensor) -> Conditioning:
        """Run the network.

        Args:
            lr: ``uint8 [N, D, h, w]``, N ≥ 1, on the device of the network.

        Raises:
            ValueError: logits or features have the wrong shape, or are not finite.
        """
        packed = self._packed
        if packed is None:
            with evaluating(self._network):
                return self._run_module(lr)
        if self.defers_logits:
            _, features, certainly_finite = compute(packed, lr, with_logits=False)
            if not certainly_finite:  # one by one, because the logits of all would take memory
                for image in lr.split(1):
                    check_finite(compute(packed, image)[0], "the conditioning network's logits")
            return of_last_layer(packed.last_layer(features), self.config.gate_inputs)
        logits, features, certainly_finite = compute(packed, lr)
        if not certainly_finite:
            check_finite(logits, "the conditioning network's logits")
        return Conditioning(logits, features)

    def bytes_per_image(self, height: int, width: int) -> int:
        """Bytes of what it returns for one image that is enlarged to H × W pixels."""
        with_logits = not self.defers_logits
        return conditioning_bytes(self.config, height, width, with_logits=with_logits)

    def _run_module(self, lr: Tensor) -> Conditioning:
        """Run the network in PyTorch."""
        if lr.device.type != "cpu":
            return Conditioning(*self._call(lr))
        if len(lr) == 1:
            return Conditioning(*map_in_threads(torch.no_grad()(lambda i: self._call(lr)), 1)[0])
        config = self.config
        size = [config.scale * side for side in lr.shape[2:]]
        single = torch.float32  # whatever the default is
        shape = len(lr), *size, config.channels, config.levels
        memory = torch.empty(shape, dtype=single, device="cpu")
        logits = memory.permute(0, 4, 3, 1, 2)
        features = torch.empty(len(lr), config.gate_inputs, *size, dtype=single, device="cpu")

        @torch.no_grad()
        def one(i: int) -> None:
            own_logits, own_features = self._call(lr[i : i + 1])
            logits[i].copy_(own_logits[0])
            features[i].copy_(own_features[0])

        map_in_threads(one, len(lr))
        return Conditioning(logits, features)

    def _call(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Call the module; check the logits and features that it returns."""
        config = self.config
        size = [config.scale * side for side in lr.shape[2:]]
        if config.conditional_gates:
            logits, features = self._network(lr, with_features=True)
        else:
            logits = self._network(lr)
            features = logits.new_empty(len(lr), 0, *size)
        logits, features = logits.float(), features.float()
        for name, tensor, shape in (
            ("logits", logits, [len(lr), config.levels, config.channels, *size]),
            ("features", features, [len(lr), config.gate_inputs, *size]),
        ):
            if list(tensor.shape) != shape:
                raise ValueError(
                    f"the conditioning network's {name} must be {shape}, got {list(tensor.shape)}"
                )
            if tensor.numel():
                check_finite(tensor, f"the conditioning network's {name}")
        return logits, features


def conditioning_bytes(
    config: PRSRConfig, height: int, width: int, *, with_logits: bool = True
) -> int:
    """Bytes of the outputs for one image of H × W pixels.

    With logits: these and the features of conditional gates. Without: the inputs of the last layer,
    which are also those features.
    """
    with_features = config.levels * config.channels + config.gate_inputs
    return 4 * (with_features if with_logits else config.conditioning_channels) * height * width
