"""Context managers that make torch compute in IEEE fp32, whatever the caller's settings are.

torch has two generations of settings for the precision of fp32 matrix products. Writing a legacy
setting also writes newer ones. A newer one with the value "none" inherits from its parent. torch
raises an error on reading a legacy setting that contradicts the newer ones, also inside of CUDA
matrix products, so that both generations have to be set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from operator import attrgetter
from typing import Any, NamedTuple

import torch

REDUCED = ("tf32", "bf16")


class Switch(NamedTuple):
    """One of the newer settings."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]
    parent: bool
    gpu: bool


def attribute(owner: str, *, parent: bool = False, gpu: bool = False) -> Switch:
    """The setting ``fp32_precision`` of a part of torch."""
    find = attrgetter(owner)
    return Switch(
        lambda: find(torch).fp32_precision,
        lambda value: setattr(find(torch), "fp32_precision", value),
        parent,
        gpu,
    )


# Parents first: once they are set, a child reads its own value.
SWITCHES = [
    attribute("backends", parent=True),
    attribute("backends.cudnn", parent=True),
    # In torch 2.13, writing its attribute sets torch.backends.fp32_precision.
    attribute("backends.mkldnn", parent=True)._replace(
        write=lambda value: torch.backends.mkldnn.set_flags(_fp32_precision=value)
    ),
    attribute("backends.cudnn.conv", gpu=True),
    attribute("backends.cuda.matmul"),
    attribute("backends.mkldnn.matmul"),
    attribute("backends.mkldnn.conv"),
]


def read_legacy_switch(read: Callable[[], Any]) -> Any:
    """The value of a legacy setting; None if a newer one contradicts it."""
    try:
        return read()
    except RuntimeError:
        return None


@contextmanager
def ieee_precision(gpu: bool) -> Iterator[None]:
    """Compute matrix products and convolutions in IEEE fp32; restores all settings afterwards.

    Args:
        gpu: whether the work is done on a GPU. If not, the setting of convolutions on GPUs, for
            which torch allows tf32 by default, is left alone.
    """
    cudnn = torch.backends.cudnn
    products = read_legacy_switch(torch.get_float32_matmul_precision)
    convolutions = read_legacy_switch(lambda: cudnn.allow_tf32)
    switches = [switch for switch in SWITCHES if gpu or not switch.gpu]
    if not hasattr(torch.backends, "fp32_precision"):  # came with torch 2.9
        switches = []
    found: list[tuple[Switch, Any]] = []
    try:
        for switch in switches:
            found.append((switch, switch.read()))
            if switch.parent and found[-1][1] in REDUCED:
                switch.write("none")
        if products not in ("highest", None):
            torch.set_float32_matmul_precision("highest")
        if gpu and convolutions:
            cudnn.allow_tf32 = False
        for switch in switches:
            if switch.read() in REDUCED:
                switch.write("ieee")
        yield
    finally:
        if products not in ("highest", None):
            torch.set_float32_matmul_precision(products)
        if gpu and convolutions:
            cudnn.allow_tf32 = True
        for switch, own in reversed(found):  # its own value, as its parent is not restored yet
            if switch.read() != own:
                switch.write(own)


@contextmanager
def own_defaults() -> Iterator[None]:
    """Create tensors on the CPU by default and outside of inference mode.

    The caller's default device may be another one, and the tensors may outlive the caller's
    inference mode.
    """
    # A device context slows down every operation a little, so it is used only where necessary.
    differs = torch.get_default_device().type != "cpu"
    with torch.device("cpu") if differs else nullcontext(), torch.inference_mode(False):
        yield


@contextmanager
def exact_fp32(device: torch.device) -> Iterator[None]:
    """Compute without gradients and autocast, in IEEE fp32 instead of tf32 or bf16.

    On a GPU, also choose deterministic convolutions and disable torch's deterministic mode. That
    mode rejects ``cumsum``, although its sums over the levels of a sub-pixel have a fixed order,
    and, unless an environment variable is set, matrix products.

    The settings are global. They are changed only where necessary and restored afterwards.
    """
    gpu = device.type == "cuda"
    cudnn = torch.backends.cudnn
    deterministic = cudnn.deterministic
    debug_mode = torch.get_deterministic_debug_mode() if gpu else 0
    try:
        if debug_mode:
            torch.set_deterministic_debug_mode(0)
        if gpu and not deterministic:
            cudnn.deterministic = True
        # No inference mode: a caller may request rows both inside and outside of it.
        no_autocast = torch.autocast(device.type, enabled=False)
        with ieee_precision(gpu), own_defaults(), torch.no_grad(), no_autocast:
            yield
    finally:
        if gpu and not deterministic:
            cudnn.deterministic = False
        if debug_mode:
            torch.set_deterministic_debug_mode(debug_mode)
