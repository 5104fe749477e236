"""The arithmetic of sampling: plain fp32, whatever the caller's settings are.

torch has two generations of switches for the precision of products. The older ones set newer ones
too; a newer one that is "none" inherits from its parent. Where the two contradict each other, torch
refuses to read the older.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from operator import attrgetter
from typing import Any, NamedTuple

import torch

LOOSE = ("tf32", "bf16")


class Switch(NamedTuple):
    """One of the newer switches."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]
    parent: bool
    gpu: bool


def attribute(owner: str, *, parent: bool = False, gpu: bool = False) -> Switch:
    """The switch ``fp32_precision`` of a part of torch."""
    find = attrgetter(owner)
    return Switch(
        lambda: find(torch).fp32_precision,
        lambda value: setattr(find(torch), "fp32_precision", value),
        parent,
        gpu,
    )


# Parents first: once they are held, what a child reads is its own.
SWITCHES = [
    attribute("backends", parent=True),
    attribute("backends.cudnn", parent=True),
    # Writing to its attribute writes to everybody's, as of torch 2.13.
    attribute("backends.mkldnn", parent=True)._replace(
        write=lambda value: torch.backends.mkldnn.set_flags(_fp32_precision=value)
    ),
    attribute("backends.cudnn.conv", gpu=True),
    attribute("backends.cuda.matmul"),
    attribute("backends.mkldnn.matmul"),
    attribute("backends.mkldnn.conv"),
]


def older(read: Callable[[], Any]) -> Any:
    """What an older switch is at; None where a newer one contradicts it."""
    try:
        return read()
    except RuntimeError:
        return None


@contextmanager
def strict_products(gpu: bool) -> Iterator[None]:
    """Products and convolutions in IEEE fp32; switches are put back as they were.

    Args:
        gpu: whether the work is done there. Else convolutions on a GPU, which by torch's default
            are loose, are none of our business.
    """
    cudnn = torch.backends.cudnn
    products = older(torch.get_float32_matmul_precision)
    convolutions = older(lambda: cudnn.allow_tf32)
    switches = [switch for switch in SWITCHES if gpu or not switch.gpu]
    if not hasattr(torch.backends, "fp32_precision"):  # came with torch 2.9
        switches = []
    found: list[tuple[Switch, Any]] = []
    try:
        for switch in switches:
            found.append((switch, switch.read()))
            if switch.parent and found[-1][1] in LOOSE:
                switch.write("none")
        if products not in ("highest", None):
            torch.set_float32_matmul_precision("highest")
        if gpu and convolutions:
            cudnn.allow_tf32 = False
        for switch in switches:
            if switch.read() in LOOSE:
                switch.write("ieee")
        yield
    finally:
        if products not in ("highest", None):
            torch.set_float32_matmul_precision(products)
        if gpu and convolutions:
            cudnn.allow_tf32 = True
        for switch, own in reversed(found):  # before its parent is back, it reads its own
            if switch.read() != own:
                switch.write(own)


@contextmanager
def own_defaults() -> Iterator[None]:
    """Make tensors on the CPU where no device is named, whatever the caller's default is.

    And make them outside of inference mode: they may outlive it.
    """
    # A device as a context costs every operation a little: only where the default is another.
    elsewhere = torch.get_default_device().type != "cpu"
    with torch.device("cpu") if elsewhere else nullcontext(), torch.inference_mode(False):
        yield


@contextmanager
def exact_fp32(device: torch.device) -> Iterator[None]:
    """No gradient, no autocast, and products in IEEE fp32: no tf32, no bf16 behind the scenes.

    And on a GPU no convolution that sums in the order in which its threads happen to end. The
    switches are global; they are touched only where they are not right already, and put back
    afterwards. On a GPU torch's deterministic mode is among them. It refuses ``cumsum``, whose sums
    over the levels of a sub-pixel have a fixed order all the same, and matrix products, unless an
    environment variable is set.
    """
    gpu = device.type == "cuda"
    cudnn = torch.backends.cudnn
    deterministic = cudnn.deterministic
    refusing = torch.get_deterministic_debug_mode() if gpu else 0
    try:
        if refusing:
            torch.set_deterministic_debug_mode(0)
        if gpu and not deterministic:
            cudnn.deterministic = True
        # Not inference mode, if the caller is in it: rows may be asked for inside and outside.
        plain = torch.autocast(device.type, enabled=False)
        with strict_products(gpu), own_defaults(), torch.no_grad(), plain:
            yield
    finally:
        if gpu and not deterministic:
            cudnn.deterministic = False
        if refusing:
            torch.set_deterministic_debug_mode(refusing)
