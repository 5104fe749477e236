"""How many samples to draw at a time, so that a large batch fits in memory."""

from __future__ import annotations

import torch

from prsr.config import PRSRConfig
from prsr.engines.cpu import BUNDLE

SLICE_BYTES = 256 * 2**20
"""Approximate size of a slice on a CPU: conditioning and caches."""

GPU_SHARE = 8
"""On a GPU, conditioning and caches of a slice take 1/8 of its memory: it needs thousands of images
at a time to be busy."""


def conditioning_bytes(
    config: PRSRConfig, height: int, width: int, *, with_logits: bool = True
) -> int:
    """Bytes of the conditioning of one image: logits and features for conditional gates.

    Without logits: the inputs of the last layer, which are also those features.
    """
    with_features = config.levels * config.channels + config.gate_inputs
    return 4 * (with_features if with_logits else config.conditioning_channels) * height * width


def sample_bytes(config: PRSRConfig, height: int, width: int, *, with_logits: bool = True) -> int:
    """Bytes of one image: its conditioning, and the engine's caches."""
    # Per layer: p + 1 rows of the vertical stack, its sums (twice as wide), and the current row.
    caches = 4 * config.prior_layers * (config.reach + 4) * width * config.prior_channels
    # The engine copies the features to its own layout while the originals are still in memory.
    caches += 4 * config.gate_inputs * height * width
    return conditioning_bytes(config, height, width, with_logits=with_logits) + caches


def per_slice(
    config: PRSRConfig,
    height: int,
    width: int,
    device: torch.device,
    *,
    with_logits: bool = True,
) -> int:
    """Number of samples of this size to draw at a time.

    Args:
        config: of the model.
        height: H.
        width: W.
        device: where they are drawn.
        with_logits: whether the conditioning logits of all pixels are in memory.
    """
    one = sample_bytes(config, height, width, with_logits=with_logits)
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return max(1, memory // GPU_SHARE // one)
    most = max(1, SLICE_BYTES // one)
    # The engine ``cpu`` is slower for the images that are left when all threads have whole bundles.
    of_threads = BUNDLE * torch.get_num_threads()
    return most - most % of_threads if most > of_threads else most


def that_fit(config: PRSRConfig, height: int, width: int, device: torch.device) -> int:
    """An estimate of the number of samples of this size that fit in the free memory."""
    if device.type != "cuda":
        return per_slice(config, height, width, device)
    free, _ = torch.cuda.mem_get_info(device)
    return free // sample_bytes(config, height, width)
