"""The processes that ``torchrun`` started: each one's place among them, and what they share.

Without ``torchrun`` there is one process, its place is the first, and all that is shared is its
own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import (  # type: ignore[attr-defined]  # public, but not marked so
    PrefixStore,
    Store,
    TCPStore,
)

Value = TypeVar("Value")

VARIABLES = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Of the environment, what ``torchrun`` tells each process."""

# Who waits is not stuck: others may have more to do, and torchrun ends all when one dies.
PATIENCE = timedelta(days=1)


def join() -> torch.device | None:
    """Join the processes that ``torchrun`` started; the device of this one, or None without it.

    Other launchers set some of its variables too: without all of them there is nothing to join.

    Raises:
        ValueError: one of them that must be a number is none.
    """
    if any(name not in os.environ for name in VARIABLES):
        return None
    for name in set(VARIABLES) - {"MASTER_ADDR"}:
        if not os.environ[name].isdigit():
            raise ValueError(f"{name} must be a number, as torchrun sets it: {os.environ[name]!r}")
    local = int(os.environ["LOCAL_RANK"])
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        timeout=PATIENCE,
        store=store_of_this_start(),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    return torch.device("cuda", local) if cuda else torch.device("cpu")


def store_of_this_start() -> Store:
    """Where the processes find each other: torchrun's store, with keys for each restart.

    torchrun keeps one store for all its restarts, and the addresses of the dead in it (PyTorch's
    issue 135712). Several nodes count their restarts apart, so that they cannot have keys by that:
    there, TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 makes torchrun start with a fresh store.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store: Store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        int(os.environ["WORLD_SIZE"]),
        is_master=not shared and os.environ["RANK"] == "0",
        timeout=PATIENCE,
    )
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        store = PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    return store


def leave() -> None:
    """Leave the other processes again, if :func:`join` joined any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def restarted() -> bool:
    """Whether ``torchrun --max-restarts`` started this process in place of one that died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def launch() -> str:
    """Tells this run of torchrun from others, the same after a restart; empty without torchrun.

    On several nodes that is its --rdzv-id; on one, which needs none, its process is known too.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ""
    one_node = os.environ.get("GROUP_WORLD_SIZE") == "1"
    return f"{os.environ['TORCHELASTIC_RUN_ID']} {os.getppid() if one_node else ''}"


def rank() -> int:
    """This process's place among all: 0 … :func:`count` − 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(total: int) -> range:
    """The part of 0 … total − 1 that is this process's; the parts of all lie side by side.

    They differ in length by one at most, the longer ones first; there may be empty ones.
    """
    here, everyone = rank(), count()
    length, left = divmod(total, everyone)
    start = here * length + min(here, left)
    return range(start, start + length + (here < left))


def over_shares(total: int, work: Callable[[range], Value]) -> list[Value]:
    """What ``work`` returns for the share of each process, in order; all of them must call it.

    Args:
        total: how many items there are to share.
        work: is called with this process's share of 0 … total − 1, which may be empty.
    """
    return gathered(work(share(total)))


def gathered(value: Value) -> list[Value]:
    """What every process brings, in the order of their places; all of them must call it.

    Args:
        value: anything that can be pickled; tensors on the CPU.
    """
    if not dist.is_initialized():
        return [value]
    values: list[Value] = [value] * count()
    dist.all_gather_object(values, value)
    return values


def mean(values: Tensor) -> Tensor:
    """The mean over all processes; every process must call it. Gradients flow through it.

    The backward pass sums the gradients of all processes, as ``DistributedDataParallel`` expects
    for a loss that is a mean over processes.
    """
    if count() == 1:
        return values
    total: Tensor = SumOverProcesses.apply(values)
    return total / count()


class SumOverProcesses(torch.autograd.Function):
    """The sum over all processes, with gradients.

    torch's own function, ``torch.distributed.nn.functional.all_reduce``, is deprecated, and what is
    to replace it is private.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """The sum, in the shape of ``values``."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The sum of the gradients of all processes."""
        return SumOverProcesses.forward(ctx, gradients[0])


def wait() -> None:
    """Wait until every process has come here."""
    if dist.is_initialized():
        dist.barrier()
