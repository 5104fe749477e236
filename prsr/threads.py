"""torch's own threads, kept out of the way of an engine's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

FEW = 8
"""Pictures for which an engine's threads wait for each other all the time."""


def adjustable() -> bool:
    """Whether torch's number of threads may be changed for a while.

    Not where Python has other threads that work: it is also what a thread begins with that is new
    to torch, and would keep.
    """
    main = threading.main_thread()
    working = [thread for thread in threading.enumerate() if not thread.daemon]
    return threading.current_thread() is main and working == [main]


@contextmanager
def considerate(pictures: int) -> Iterator[None]:
    """With few pictures, run what torch does inside on one thread, if :func:`adjustable`.

    An operation that torch's threads share leaves them spinning for some ten milliseconds, on the
    cores that the engine's threads want next. A picture takes not much longer than that, and the
    operations before it gain a millisecond from more threads.
    """
    threads = torch.get_num_threads()
    if pictures >= FEW or threads == 1 or not adjustable():
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def side_by_side(work: Callable[[int], None], count: int) -> None:
    """Call ``work`` with 0 … count − 1, several at once, each with one of torch's threads.

    One after the other where torch's threads are not :func:`adjustable`. What is local to a thread
    (gradients wanted or not, autocast) is at its default in ``work``.
    """
    threads = torch.get_num_threads()
    if threads == 1 or not adjustable():
        for i in range(count):
            work(i)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(work, range(count)):
                pass
    finally:
        torch.set_num_threads(threads)
