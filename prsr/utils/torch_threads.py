"""torch's own threads, kept out of the way of an engine's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock, Thread
from typing import TypeVar

import torch

Result = TypeVar("Result")

FEW = 8
"""Images for which an engine's threads wait for each other all the time."""

_lock = Lock()


def keep_to_one() -> int:
    """Let torch use one thread for what the calling one computes; returns how many it was before.

    torch's own setting is also what a thread begins with that is new to torch, and would keep: so
    one that is new puts that back, some 0.1 ms later.
    """
    with _lock:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        elsewhere(lambda: torch.set_num_threads(threads))
    return threads


def elsewhere(work: Callable[[], None]) -> None:
    """Call ``work`` in a new thread, and wait for it."""
    thread = Thread(target=work)
    thread.start()
    thread.join()


@contextmanager
def considerate(images: int) -> Iterator[None]:
    """With few images, run what torch does inside on one thread.

    An operation that torch's threads share leaves them spinning for some ten milliseconds, on the
    cores that the engine's threads want next. An image takes not much longer than that, and the
    operations before it gain a millisecond from more threads.
    """
    if images >= FEW or torch.get_num_threads() == 1:
        yield
        return
    threads = keep_to_one()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def side_by_side(work: Callable[[int], Result], count: int) -> list[Result]:
    """What ``work`` says to 0 … count − 1, several at once, each with one of torch's threads.

    What is local to a thread (gradients wanted or not, autocast) is at its default in ``work``,
    or as the caller has it.
    """
    threads = torch.get_num_threads()
    if threads > 1 and count > 1:
        with ThreadPoolExecutor(threads, initializer=keep_to_one) as pool:
            try:
                results = pool.map(work, range(count))
            except RuntimeError:  # pools are closed already where Python is about to end
                pass
            else:
                return list(results)
    with considerate(1):
        return [work(i) for i in range(count)]
