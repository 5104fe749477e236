"""The processes started by ``torchrun``: rank, count, shares of the work, collective operations.

Without ``torchrun`` there is one process of rank 0, and collective operations return its own value.
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
"""The environment variables that ``torchrun`` sets for each process."""

# Long, because other processes may have more work; torchrun ends all processes when one dies.
TIMEOUT = timedelta(days=1)


def join() -> torch.device | None:
    """Join the processes started by ``torchrun``.

    Other launchers set some of its variables too, so this does nothing unless all are set.

    Returns:
        The device of this process, or None without ``torchrun``.

    Raises:
        ValueError: a variable that must be a number is not one.
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
        timeout=TIMEOUT,
        store=make_store(),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    return torch.device("cuda", local) if cuda else torch.device("cpu")


def make_store() -> Store:
    """The store through which the processes find each other, with separate keys for each restart.

    torchrun keeps one store over all restarts, with the addresses of dead processes in it (PyTorch
    issue 135712). On several nodes the restart counts differ, so keys cannot depend on them; there,
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 makes torchrun use a new store.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store: Store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        int(os.environ["WORLD_SIZE"]),
        is_master=not shared and os.environ["RANK"] == "0",
        timeout=TIMEOUT,
    )
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        store = PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    return store


def leave() -> None:
    """Leave the process group, if :func:`join` joined one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_restart() -> bool:
    """Whether ``torchrun --max-restarts`` started this process to replace one that died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def launch_id() -> str:
    """An identifier of this run of torchrun that survives restarts; empty without torchrun.

    It is torchrun's --rdzv-id and, on a single node, where that is optional, its process id.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ""
    one_node = os.environ.get("GROUP_WORLD_SIZE") == "1"
    return f"{os.environ['TORCHELASTIC_RUN_ID']} {os.getppid() if one_node else ''}"


def rank() -> int:
    """The rank of this process: 0 … :func:`count` − 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(total: int) -> range:
    """This process's contiguous share of 0 … total − 1.

    Shares are in rank order and differ in length by at most one, longer ones first. They may be
    empty.
    """
    length, longer = divmod(total, count())
    start = rank() * length + min(rank(), longer)
    return range(start, start + length + (rank() < longer))


def map_shares(total: int, work: Callable[[range], Value]) -> list[Value]:
    """The results of ``work`` for all processes in rank order; every process must call it.

    Args:
        total: number of items to share.
        work: called with this process's share of 0 … total − 1, which may be empty.
    """
    return gather(work(share(total)))


def gather(value: Value) -> list[Value]:
    """The values of all processes in rank order; every process must call it.

    Args:
        value: any picklable object; tensors on the CPU.
    """
    if not dist.is_initialized():
        return [value]
    values: list[Value] = [value] * count()
    dist.all_gather_object(values, value)
    return values


def stack(values: Tensor) -> Tensor:
    """The values of all processes in rank order, ``[P, *values.shape]``.

    Every process must call it, with values of the same shape. Gradients flow through it: the
    backward pass sums those of all processes, as ``DistributedDataParallel`` expects for a loss
    that is a mean over processes.
    """
    if count() == 1:
        return values[None]
    stacked: Tensor = Stack.apply(values)
    return stacked


def mean(values: Tensor) -> Tensor:
    """The mean over all processes; every process must call it. Gradients flow through it."""
    return stack(values).mean(0)


class Stack(torch.autograd.Function):
    """:func:`stack` for several processes.

    torch's own function, ``torch.distributed.nn.functional.all_gather``, is deprecated, and what is
    to replace it is private. For a few values, gathering takes gloo half the time of summing.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """``values.shape`` → ``[P, *values.shape]``."""
        values = values.contiguous()
        parts = [torch.empty_like(values) for _ in range(count())]
        dist.all_gather(parts, values)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """``[P, *values.shape]`` → ``values.shape``."""
        return Stack.forward(ctx, gradients[0])[:, rank()].sum(0)


def barrier() -> None:
    """Wait until every process has called this."""
    if dist.is_initialized():
        dist.barrier()
