"""torch's own threads, kept out of the way of an engine's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

FEW = 8
"""Pictures for which an engine's threads wait for each other all the time."""


@contextmanager
def considerate(pictures: int) -> Iterator[None]:
    """With few pictures, run what torch does inside on one thread.

    An operation that torch's threads share leaves them spinning for some ten milliseconds, on the
    cores that the engine's threads want next. A picture takes not much longer than that, and the
    operations before it gain a millisecond from more threads.

    Nothing is done where Python has other threads that work: torch's setting is also what a thread
    begins with that is new to torch, and would keep.
    """
    threads = torch.get_num_threads()
    main = threading.main_thread()
    working = [thread for thread in threading.enumerate() if not thread.daemon]
    alone = threading.current_thread() is main and working == [main]
    if pictures >= FEW or threads == 1 or not alone:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
