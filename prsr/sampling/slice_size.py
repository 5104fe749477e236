"""How many samples to draw at a time, so that a large batch fits in memory."""

from __future__ import annotations

import torch

from prsr.config import PRSRConfig

SLICE_BYTES = 256 * 2**20
"""Approximate size of the conditioning logits and features of a slice on a CPU."""

GPU_SHARE = 8
"""On a GPU, logits and caches of a slice take 1/8 of its memory: it needs thousands of images at a
time to be busy."""


def conditioning_bytes(config: PRSRConfig, height: int, width: int) -> int:
    """Bytes of the conditioning logits of one image, and of the features for conditional gates."""
    return 4 * (config.levels * config.channels + config.gate_inputs) * height * width


def sample_bytes(config: PRSRConfig, height: int, width: int) -> int:
    """Bytes of one image on a GPU: its conditioning, and the engine's caches."""
    # Per layer: p + 1 rows of the vertical stack, its sums (twice as wide), and the current row.
    caches = 4 * config.prior_layers * (config.reach + 4) * width * config.prior_channels
    # The engine copies the features to its own layout while the originals are still in memory.
    caches += 4 * config.gate_inputs * height * width
    return conditioning_bytes(config, height, width) + caches


def per_slice(config: PRSRConfig, height: int, width: int, device: torch.device) -> int:
    """Number of samples of this size to draw at a time."""
    if device.type != "cuda":
        return max(1, SLICE_BYTES // conditioning_bytes(config, height, width))
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(1, memory // GPU_SHARE // sample_bytes(config, height, width))


def that_fit(config: PRSRConfig, height: int, width: int, device: torch.device) -> int:
    """An estimate of the number of samples of this size that fit in the free memory."""
    if device.type != "cuda":
        return per_slice(config, height, width, device)
    free, _ = torch.cuda.mem_get_info(device)
    return free // sample_bytes(config, height, width)
