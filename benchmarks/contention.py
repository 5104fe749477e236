"""Latency of an image while other processes compete for the cores."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.report import Column, Record, ms
from benchmarks.run import Run
from benchmarks.timing import timed

IMAGES = 20

# They end when their parent ends for any reason.
SPIN = "import os\nwhile os.getppid() == {parent}:\n    sum(range(100_000))"


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run ``count`` single-threaded processes that compute without pause."""
    command = [sys.executable, "-c", SPIN.format(parent=os.getpid())]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def contention(run: Run) -> None:
    """Print a table and check its target."""
    call = run.subject.whole_call(1)
    call()
    quiet = [timed(call) for _ in range(IMAGES)]
    with busy_processes(run.threads):
        call()
        busy = [timed(call) for _ in range(IMAGES)]
    records: list[Record] = [
        {"state": state, "median": statistics.median(seconds), "most": max(seconds)}
        for state, seconds in (("quiet", quiet), ("busy", busy))
    ]
    run.report.table(
        "contention",
        f"ms of a whole call at batch 1, alone and with {run.threads} busy processes",
        [
            Column("state", ""),
            Column("median", "median", ms),
            Column("most", f"slowest of {IMAGES}", ms),
        ],
        records,
    )
    slower = records[1]["median"] / records[0]["median"]
    run.target("busy processes: an image over its quiet time", slower, most=4)
