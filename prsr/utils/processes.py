"""Calls of a function side by side, in processes with one torch thread each."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple, TypeVar, cast

import torch

from prsr.utils.torch_threads import use_one_torch_thread

Argument = TypeVar("Argument")

Send = Callable[[Any], None]


class Ended(NamedTuple):
    """The last message of a call: its error and the traceback, or nothing."""

    error: Exception | None = None
    trace: str = ""


def call_side_by_side(
    work: Callable[[Argument, Send], None],
    arguments: Mapping[str, Argument],
    processes: int,
    receive: Callable[[str, Any], None],
) -> None:
    """Call a function with several arguments, up to ``processes`` of them at the same time.

    Torch has one thread in each call, so that results do not depend on ``processes``. If that is 1,
    the calls are made in this process. Otherwise each is made in a new process, which starts
    without the state of this one and ends when this one does, even if this one is killed. After an
    error or an interruption, the other calls are stopped by :class:`SystemExit`.

    Args:
        work: a function of a module, called with an argument and a function that sends a message.
        arguments: picklable arguments by name, in the order in which their calls start.
        processes: 1 or more.
        receive: called in this process with the name of a call and a message.

    Raises:
        ChildProcessError: a process ended without a result, for example because it was killed.
        Exception: the first error of a call.
    """
    if processes == 1:
        threads = use_one_torch_thread()
        try:
            for name, argument in arguments.items():
                work(argument, partial(receive, name))
        finally:
            torch.set_num_threads(threads)
        return
    waiting = list(arguments)
    running: dict[Connection, tuple[str, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                name = waiting.pop(0)
                with blocked_interrupts():
                    receiver, process = start(work, arguments[name])
                    running[receiver] = name, process
            for receiver in cast(list[Connection], wait(list(running))):
                name, process = running[receiver]
                try:
                    message = receiver.recv()
                except EOFError:
                    process.join()
                    raise ChildProcessError(
                        f"the process of {name} ended with exit code {process.exitcode}"
                    ) from None
                if not isinstance(message, Ended):
                    receive(name, message)
                    continue
                if message.error is not None:
                    raise message.error from RuntimeError(f"in another process:\n{message.trace}")
                del running[receiver]
                process.join()
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


@contextmanager
def blocked_interrupts() -> Iterator[None]:
    """Delay SIGINT in this thread; processes that are started meanwhile never receive it.

    A terminal sends it to all processes, but only this one must decide what it means.
    """
    resource_tracker.ensure_running()  # starting it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(
    work: Callable[[Argument, Send], None], argument: Argument
) -> tuple[Connection, SpawnProcess]:
    """Start a process that makes a call; returns the connection for its messages too."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=call, args=(sender, work, argument), daemon=True)
    process.start()
    sender.close()  # so that the receiver notices the end of the process
    return receiver, process


def call(sender: Connection, work: Callable[[Argument, Send], None], argument: Argument) -> None:
    """The main function of a process: make the call, and send its messages and its end."""
    # An exception, so that unfinished files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        work(argument, sender.send)
    except Exception as error:
        sender.send(Ended(transferable(error), traceback.format_exc()))
    else:
        sender.send(Ended())


def transferable(error: Exception) -> Exception:
    """The error, or a :class:`RuntimeError` that describes it if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the error's class raises
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def end_with_parent() -> None:
    """Wait for the end of the parent process, then end this one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
