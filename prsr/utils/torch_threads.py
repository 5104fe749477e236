"""Limits on torch's own threads, so that they do not compete with those of an engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock, Thread
from typing import TypeVar

import torch

Result = TypeVar("Result")

FEW_IMAGES = 8
"""Below this number of images, torch runs single-threaded next to an engine."""

_lock = Lock()

# The threads of torch do not exist in a child of fork, which would wait for them for ever.
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def use_one_torch_thread() -> int:
    """Let torch use one thread in the calling thread; returns the previous number.

    ``torch.set_num_threads`` also sets the number with which new threads start. A new thread
    therefore restores that number, about 0.1 ms later.
    """
    with _lock:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        run_in_new_thread(lambda: torch.set_num_threads(threads))
    return threads


def run_in_new_thread(work: Callable[[], None]) -> None:
    """Call ``work`` in a new thread and wait for it."""
    thread = Thread(target=work)
    thread.start()
    thread.join()


@contextmanager
def single_threaded_section(images: int) -> Iterator[None]:
    """Run torch on one thread if there are fewer than ``FEW_IMAGES`` images.

    After a multi-threaded operation, torch's threads spin for about 10 ms on the cores that the
    engine's threads need next. Sampling an image takes not much longer, while multi-threading saves
    only about 1 ms of the operations before it.
    """
    if images >= FEW_IMAGES or torch.get_num_threads() == 1:
        yield
        return
    threads = use_one_torch_thread()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def map_in_threads(work: Callable[[int], Result], count: int) -> list[Result]:
    """The results of ``work`` for 0 … count − 1, computed in parallel with one torch thread each.

    In ``work``, thread-local settings of torch (gradients, autocast) may have their defaults or the
    caller's values.
    """
    threads = torch.get_num_threads()
    if threads > 1 and count > 1:
        with ThreadPoolExecutor(threads, initializer=use_one_torch_thread) as pool:
            try:
                results = pool.map(work, range(count))
            except RuntimeError:  # the interpreter is shutting down and starts no threads
                pass
            else:
                return list(results)
    with single_threaded_section(1):
        return [work(i) for i in range(count)]
