"""The arithmetic of sampling: plain fp32, whatever the caller's settings are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from typing import Any

import torch

LOOSE = ("tf32", "bf16")


@contextmanager
def held(switch: str, wrong: Collection[Any], right: Any) -> Iterator[None]:
    """A switch of ``torch.backends`` at ``right`` if it is at one of ``wrong``; then put back.

    Nothing is done about one that this torch does not have, or whose newer twin contradicts it,
    which torch then refuses to read.
    """
    *parents, name = switch.split(".")
    try:
        owner = attrgetter(".".join(["backends", *parents]))(torch)
        before = getattr(owner, name)
    except (AttributeError, RuntimeError):
        yield
        return
    if before not in wrong:
        yield
        return
    setattr(owner, name, right)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def held_products() -> Iterator[None]:
    """Like :func:`held`, of the older of two switches for matrix products."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        before = "highest"
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def exact_fp32(device: torch.device) -> Iterator[None]:
    """No gradient, no autocast, and products in IEEE fp32: no tf32, no bf16 behind the scenes.

    And on a GPU no convolution that sums in the order in which its threads happen to end. The
    switches are global; they are touched only where they are not right already, and put back
    afterwards.
    """
    with ExitStack() as stack:
        # Older switches come first, for they set newer ones too; of those, what others inherit.
        stack.enter_context(held_products())
        if device.type == "cuda":
            stack.enter_context(held("cudnn.allow_tf32", [True], False))
            stack.enter_context(held("cudnn.deterministic", [False], True))
        stack.enter_context(held("fp32_precision", LOOSE, "none"))
        if device.type == "cuda":
            stack.enter_context(held("cudnn.fp32_precision", LOOSE, "none"))
            stack.enter_context(held("cudnn.conv.fp32_precision", LOOSE, "ieee"))
        for switch in ("cuda.matmul", "mkldnn.matmul", "mkldnn.conv"):
            stack.enter_context(held(f"{switch}.fp32_precision", LOOSE, "ieee"))
        # Not inference mode, if the caller is in it: rows may be asked for inside and outside.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        yield
