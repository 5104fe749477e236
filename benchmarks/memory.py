"""Peak memory of sampling, measured in separate processes, without memory left over by other work.

    python -m benchmarks.memory PRESET ENLARGE BATCH

is such a process. It prints as JSON by how many bytes the resident set grew at most in the second
of two equal calls, because the first one packs weights: for a whole call of ``Sampler.sample``, and
for the engine alone (given conditioning logits and few rows, on which memory does not depend). It
reads the high-water mark in ``/proc`` and therefore needs Linux; ``getrusage`` cannot be reset and
includes the parent.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import Column, Record, megabytes
from benchmarks.run import Run
from benchmarks.subject import ENGINE, Subject
from prsr import PRSRConfig
from prsr.sampling.slice_size import per_slice

PROCESS = Path("/proc/self")
ENLARGE = 2  # images of 64×64 for the preset paper
ROWS = 8
A_FEW = 8e6  # bytes


def memory(run: Run) -> None:
    """Print a table and check its targets: a few MB per image, also in large batches."""
    if not (PROCESS / "clear_refs").exists():
        run.report.console.print("\nPeak memory is measured on Linux only.")
        return
    height, width = (ENLARGE * side for side in run.subject.size)
    in_slice = per_slice(ENGINE, run.subject.conditioner(last_layer=True), height, width)
    batches = run.choose((1, 16, 64, 256), (1, 16))
    records: list[Record] = [{"batch": batch, **measure(run.preset, batch)} for batch in batches]
    run.report.table(
        "memory",
        "Peak memory in MB beyond the weights, images twice as high and wide",
        [
            Column("batch", "batch"),
            Column("engine", "engine alone", megabytes),
            Column("call", "whole call", megabytes),
        ],
        records,
        f"A whole call samples slices of {in_slice}; the engine alone, the whole batch at once.",
    )
    first, *others = records
    run.target("memory of a whole call at batch 1, MB", first["call"], most=A_FEW, show=megabytes)
    for part in ("engine", "call"):
        for record in others:
            growth_of_one = record[part] / record["batch"] / first[part]
            name = f"memory of batch {record['batch']}, {part}: an image over one of batch 1"
            run.target(name, growth_of_one, most=1.1)


def measure(preset: str, batch: int) -> dict[str, int]:
    """Peak growth in bytes of a new process that samples a batch: "call" and "engine"."""
    command = [sys.executable, "-m", "benchmarks.memory", preset, str(ENLARGE), str(batch)]
    folder = Path(__file__).parent.parent
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=folder)
    figures: dict[str, int] = json.loads(result.stdout)
    return figures


def resident(mark: str) -> int:
    """``VmRSS``, the resident set, or ``VmHWM``, its high-water mark, in bytes."""
    lines = (PROCESS / "status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(mark))


def growth(work: Callable[[], object]) -> int:
    """The peak growth of the resident set in bytes during ``work``."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)  # otherwise memory that was freed but kept would not be counted
    (PROCESS / "clear_refs").write_text("5")
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def main() -> None:
    """Measure and print as JSON."""
    config, enlarge, batch = PRSRConfig.preset(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    subject = Subject(config, enlarge)
    works = {"call": subject.whole_call(batch), "engine": subject.engine_alone(batch, rows=ROWS)}
    figures = {}
    for name, work in works.items():
        work()  # packs weights and does other one-time work
        figures[name] = growth(work)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
