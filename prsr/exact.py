"""The arithmetic of sampling: plain fp32, whatever the caller's settings are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_fp32(device: torch.device) -> Iterator[None]:
    """No gradient, no autocast, and products in IEEE fp32: no tf32, no bf16 behind the scenes.

    And on a GPU no convolution that sums in the order in which its threads happen to end. The
    switches are global; they are touched only where they are not right already, and put back
    afterwards.
    """
    products = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    convolutions, deterministic = cudnn.allow_tf32, cudnn.deterministic
    try:
        if products != "highest":
            torch.set_float32_matmul_precision("highest")
        if convolutions and device.type == "cuda":
            cudnn.allow_tf32 = False
        if not deterministic and device.type == "cuda":
            cudnn.deterministic = True
        # Not inference mode, if the caller is in it: rows may be asked for inside and outside.
        plain = torch.autocast(device.type, enabled=False)
        with torch.inference_mode(False), torch.no_grad(), plain:
            yield
    finally:
        if products != "highest":
            torch.set_float32_matmul_precision(products)
        if convolutions and device.type == "cuda":
            cudnn.allow_tf32 = True
        if not deterministic and device.type == "cuda":
            cudnn.deterministic = False
