"""Large batches are drawn in slices, so that what is held for one fits in memory."""

from __future__ import annotations

import torch

from prsr.config import PRSRConfig

SLICE_BYTES = 256 * 2**20
"""Conditioning logits and features held at a time on a CPU, about."""

GPU_SHARE = 8
"""On a GPU, logits and caches may take one part in so many of its memory: it draws thousands of
images at a time, or most of it is idle."""


def conditioning_bytes(config: PRSRConfig, height: int, width: int) -> int:
    """Of the conditioning logits of one image, and of the features that its gates read."""
    return 4 * (config.levels * config.channels + config.gate_inputs) * height * width


def per_slice(config: PRSRConfig, height: int, width: int, device: torch.device) -> int:
    """How many images of this size are drawn at a time."""
    conditioning = conditioning_bytes(config, height, width)
    if device.type != "cuda":
        return max(1, SLICE_BYTES // conditioning)
    # Of each layer: p + 1 rows of the vertical stack, its sums (twice as wide), and this row.
    caches = 4 * config.prior_layers * (config.reach + 4) * width * config.prior_channels
    # The engine lays out the features anew, and the conditioning network's own are still held.
    caches += 4 * config.gate_inputs * height * width
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(1, memory // GPU_SHARE // (conditioning + caches))
