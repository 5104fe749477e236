"""How many samples to draw at a time, so that a large batch fits in memory.

The conditioner and the engine say what one sample takes, this module what a slice may take.
"""

from __future__ import annotations

import torch

from prsr.engines.base import Engine
from prsr.sampling.conditioning import Conditioner

SLICE_BYTES = 256 * 2**20
"""Approximate size of a slice on a CPU: conditioning and caches."""

GPU_SHARE = 8
"""On a GPU, conditioning and caches of a slice take 1/8 of its memory: it needs thousands of images
at a time to be busy."""


def sample_bytes(engine: Engine, conditioner: Conditioner, height: int, width: int) -> int:
    """Bytes of one sample of H × W pixels: its conditioning, and what the engine needs besides."""
    config, last_layer = conditioner.config, conditioner.defers_logits
    beside = engine.bytes_per_image(config, height, width, last_layer=last_layer)
    return conditioner.bytes_per_image(height, width) + beside


def per_slice(engine: Engine, conditioner: Conditioner, height: int, width: int) -> int:
    """Number of samples of H × W pixels to draw at a time.

    It is a multiple of :meth:`Engine.images_at_once` if so many fit.
    """
    device = conditioner.device
    if device.type == "cuda":
        budget = torch.cuda.get_device_properties(device).total_memory // GPU_SHARE
    else:
        budget = SLICE_BYTES
    most = max(1, budget // sample_bytes(engine, conditioner, height, width))
    multiple = engine.images_at_once()
    return most - most % multiple if most > multiple else most


def fit_in_free_memory(engine: Engine, conditioner: Conditioner, height: int, width: int) -> int:
    """An estimate of the number of samples of H × W pixels that fit in the free memory.

    Only a GPU says how much is free. On a CPU, the estimate is the size of a slice.
    """
    device = conditioner.device
    if device.type != "cuda":
        return per_slice(engine, conditioner, height, width)
    free, _ = torch.cuda.mem_get_info(device)
    return free // sample_bytes(engine, conditioner, height, width)
