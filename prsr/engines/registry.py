"""The list of engines, and the choice among them.

A new engine is a module in this package and an entry in ``ENGINES``.
"""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import nn

from prsr.config import PRSRConfig
from prsr.engines.base import Engine
from prsr.engines.cpu import CPUEngine
from prsr.engines.cuda import CUDAEngine
from prsr.engines.effective_weights import obstacle
from prsr.engines.reference import ReferenceEngine
from prsr.engines.torch import TorchEngine
from prsr.engines.triton import TritonEngine
from prsr.utils.terminal_messages import Notice

ENGINES: tuple[Engine, ...] = (
    CPUEngine(),
    TritonEngine(),
    CUDAEngine(),
    TorchEngine(),
    ReferenceEngine(),
)
"""In the order in which ``engine="auto"`` prefers them."""

PRECISIONS = ("fp32", "fp16", "bf16")


def list_engines(
    config: PRSRConfig | None = None,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
) -> dict[str, list[str]]:
    """The reasons why each engine cannot be used here, by its name; an empty list if it can.

    Args:
        config: of the model; None is the preset ``paper``.
        device: of the model.
        precision: one of :data:`PRECISIONS`.

    Raises:
        ValueError: there is no such precision or device type.
    """
    check_precision(precision)
    config = config or PRSRConfig()
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"there is no kind of device called {device!r}") from error
    absent = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    reasons = [f"there is no device {device} here"] if absent else []
    return {engine.name: reasons + engine.reasons(config, device, precision) for engine in ENGINES}


def choose(
    name: str, config: PRSRConfig, device: torch.device, precision: str, prior: nn.Module
) -> Engine:
    """The engine called ``name``, or for "auto" the first that can be used.

    Only an engine that calls the prior can be used if its weights do not determine its result.

    Raises:
        ValueError: there is no such engine, or it cannot be used; the message lists all reasons.
    """
    reasons = list_engines(config, device, precision)
    if name != "auto" and name not in reasons:
        raise ValueError(f"no engine {name!r}; there are: auto, {', '.join(reasons)}")
    if reason := obstacle(prior, config):
        for engine in ENGINES:
            if not engine.calls_prior:
                reasons[engine.name].append(reason)
    wanted = [engine for engine in ENGINES if name in ("auto", engine.name)]
    for place, engine in enumerate(wanted):
        if not reasons[engine.name]:
            for better in wanted[:place]:
                if better.device_type == device.type:
                    tell_absence(better.name, "; ".join(reasons[better.name]), engine.name)
            return engine
    against = "; ".join(f"{e.name}: {', '.join(reasons[e.name])}" for e in wanted)
    raise ValueError(f"engine={name!r} cannot be used: {against}")


@cache
def tell_absence(better: str, reasons: str, chosen: str) -> None:
    """Warn once that ``engine="auto"`` selects a slower engine than the one for the device."""
    warnings.warn(
        f"sampling will be many times slower: engine {better} cannot be used; using {chosen} "
        f"instead. {better}: {reasons}",
        Notice,
        stacklevel=3,
    )


def check_precision(precision: str) -> None:
    """Raise ValueError unless ``precision`` is one of :data:`PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
