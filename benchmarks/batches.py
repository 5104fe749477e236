"""Batch sizes: the engine alone against its bound, and whole calls against comparators."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks import compiled
from benchmarks.bounds import bounds, conditioning_multiply_adds
from benchmarks.report import Column, Record, milliseconds, ms, times, whole_seconds
from benchmarks.run import Run
from benchmarks.subject import ENGINE, EPSILON
from benchmarks.timing import Timing, timed
from prsr.engines.native import chosen_instruction_set

COMPILED_BATCHES = (1, 16)  # compiling takes half a minute each


def batches(run: Run) -> None:
    """Print two tables and check their targets."""
    compiling = Compiling(run)
    records = {
        batch: measure(run, batch, compiling) for batch in run.choose((1, 2, 4, 8, 16, 64), (1, 16))
    }
    rows = list(records.values())
    run.report.table(
        "batches",
        "ms per image: the engine alone, with given conditioning logits",
        [
            Column("batch", "batch"),
            Column("engine", "engine", milliseconds),
            Column("bound", "bound", ms),
            Column("ratio", "over bound", times),
            Column("bf16", "bf16", milliseconds),
            Column("by_bf16", "faster by", times),
        ],
        rows,
        f"At batch 1 the engine skips hidden units that are zero, here "
        f"{1 - run.subject.share_alive():.0%}; the bound includes their weights.",
    )
    run.report.table(
        "batches",
        "ms per image: whole calls of Sampler.sample, with the conditioning network",
        [
            Column("batch", "batch"),
            Column("call", "engine cpu", milliseconds),
            Column("call_bound", "bound", ms),
            Column("call_ratio", "over bound", times),
            Column("eager", "cached eager", milliseconds),
            Column("by_eager", "faster by", times),
            Column("compiled", "compiled", milliseconds),
            Column("by_compiled", "faster by", times),
            Column("naive", "naive", whole_seconds),
            Column("by_naive", "faster by", times),
        ],
        rows,
        "The bound is that of the engine plus the conditioning network's arithmetic at the peak.\n"
        "Cached eager: engine torch. Naive: a few forward passes of the prior, times H·W·D.\n"
        f"Compiled: {compiling.note}.",
    )
    targets(run, records)


class Compiling:
    """The comparator under ``torch.compile``, if compiling works here."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.seconds: dict[int, float] = {}
        self.problem = "not in a quick run" if run.quick else ""
        compiled.register()

    def work(self, batch: int) -> dict[str, Callable[[], object]]:
        """A compiled whole call whose images were checked; empty if there is none."""
        if self.problem or batch not in COMPILED_BATCHES:
            return {}
        subject = self.run.subject
        work = subject.whole_call(batch, "compiled")
        try:
            self.seconds[batch] = timed(work)
        except Exception as error:  # compilers fail with errors of many types
            self.problem = str(error).strip().partition("\n")[0]
            return {}
        if not subject.violation(work()) <= EPSILON:
            self.problem = "samples wrong images"
            return {}
        return {"compiled": work}

    @property
    def note(self) -> str:
        """The compile time, or the problem."""
        took = [f"{seconds:.0f} s at batch {batch}" for batch, seconds in self.seconds.items()]
        first = f"the first call, not counted, took {', '.join(took)} (less from a cache)"
        return self.problem or first


def measure(run: Run, batch: int, compiling: Compiling) -> Record:
    """All timings of one batch size, in seconds per image."""
    subject = run.subject
    works: dict[str, Callable[[], object]] = {
        "engine": subject.engine_alone(batch),
        "call": subject.whole_call(batch),
        "eager": subject.whole_call(batch, "torch"),
        "naive": subject.prior_forward(batch),
        **compiling.work(batch),
    }
    if not ENGINE.reasons(subject.config, torch.device("cpu"), "bf16"):
        works["bf16"] = subject.engine_alone(batch, "bf16")
    timings: dict[str, Timing] = {
        name: timing.times(1 / batch) for name, timing in run.interleaved(works).items()
    }
    timings["naive"] = timings["naive"].times(subject.pixels * subject.config.channels)
    bound = sum(bounds(run.parts, run.limits, subject.pixels, batch).values())
    low_pixels = subject.low_size[0] * subject.low_size[1]
    network = subject.model.conditioning
    call_bound = bound + run.limits.arithmetic(conditioning_multiply_adds(network, low_pixels))
    call = timings["call"].median
    in_bf16 = timings.get("bf16")
    return {
        "batch": batch,
        **timings,
        "bound": bound,
        "ratio": timings["engine"].median / bound,
        "call_bound": call_bound,
        "call_ratio": call / call_bound,
        "by_bf16": in_bf16 and timings["engine"].median / in_bf16.median,
        **{
            f"by_{name}": timings[name].median / call
            for name in ("eager", "compiled", "naive")
            if name in timings
        },
    }


def targets(run: Run, records: dict[int, Record]) -> None:
    """Check the targets of each batch size."""
    for batch, record in records.items():
        if 1 < batch < 16:
            slower = record["call"].median / records[1]["call"].median
            run.target(f"batch {batch}: an image over one of batch 1", slower, most=1.0)
            continue
        most, naive = (1.4, 2500) if batch == 1 else (1.2, 5000)
        run.target(f"batch {batch}: engine over its bound", record["ratio"], most=most)
        run.target(f"batch {batch}: faster than naive", record["by_naive"], least=naive)
        if batch == 64 and chosen_instruction_set() == "avx512bf16":
            run.target(f"batch {batch}: bf16 faster than fp32", record["by_bf16"], least=1.5)
        eager = {1: 40, 16: 8}.get(batch)
        if eager:
            run.target(f"batch {batch}: faster than cached eager", record["by_eager"], least=eager)
