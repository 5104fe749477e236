"""Batch sizes: the engine alone against its bound, and whole calls against comparators."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks import compiled, jax_sampler
from benchmarks.bounds import conditioning_multiply_adds
from benchmarks.report import Column, Record, milliseconds, ms, times, whole_seconds
from benchmarks.run import ENGINE_COLUMNS, Run
from benchmarks.subject import ENGINE, EPSILON
from benchmarks.timing import Timing
from prsr.engines.grouped_weights import pack_prior
from prsr.engines.native import chosen_instruction_set

COMPILED_BATCHES = (1, 16)  # compiling takes half a minute each
JAX_BATCHES = (1, 16, 64)


def batches(run: Run) -> None:
    """Print two tables and check their targets."""
    compiling, in_jax = compiled_torch(run), jax(run)
    records = {
        batch: measure(run, batch, [compiling, in_jax])
        for batch in run.choose((1, 2, 4, 8, 16, 64), (1, 16))
    }
    rows = list(records.values())
    run.report.table(
        "batches",
        "ms per image: the engine alone, with given conditioning logits",
        [
            Column("batch", "batch"),
            *ENGINE_COLUMNS,
            Column("bf16", "bf16", milliseconds),
            Column("by_bf16", "faster by", times),
            Column("jax", "JAX", milliseconds),
            Column("by_jax", "faster by", times),
        ],
        rows,
        f"The engine skips hidden units that are zero in all images that a thread draws together. "
        f"In an image {1 - run.subject.nonzero():.0%} are, in all of 8 images "
        f"{1 - run.subject.nonzero(8):.0%}.\nThe bound includes their weights; the bound without "
        "zeros leaves out those of an image.\n"
        f"JAX: {in_jax.note}.",
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


class Compiled:
    """A comparator that compiles for each batch size, if it works here.

    Args:
        run: the run.
        name: of its timings.
        batches: to measure.
        build: returns the work of a batch, which returns the images of seed 0.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        batches: tuple[int, ...],
        build: Callable[[int], Callable[[], Tensor]],
    ) -> None:
        self.subject, self.name, self.batches, self.build = run.subject, name, batches, build
        self.seconds: dict[int, float] = {}
        self.problem = "not in a quick run" if run.quick else ""

    def work(self, batch: int) -> dict[str, Callable[[], object]]:
        """The work of a batch, after its images were checked; empty if there is none."""
        if self.problem or batch not in self.batches:
            return {}
        start = time.perf_counter()
        try:
            work = self.build(batch)
            images = work()
        except Exception as error:  # compilers fail with errors of many types
            self.problem = str(error).strip().partition("\n")[0]
            return {}
        self.seconds[batch] = time.perf_counter() - start
        if not self.subject.violation(images) <= EPSILON:
            self.problem = "samples wrong images"
            return {}
        return {self.name: work}

    @property
    def note(self) -> str:
        """The compile time, or the problem."""
        took = [f"{seconds:.0f} s at batch {batch}" for batch, seconds in self.seconds.items()]
        first = f"the first call, with compilation, took {', '.join(took)}; it is not counted"
        return self.problem or first


def compiled_torch(run: Run) -> Compiled:
    """The engine ``torch`` under ``torch.compile``, whole calls."""
    compiled.register()
    build = partial(run.subject.whole_call, engine="compiled")
    return Compiled(run, "compiled", COMPILED_BATCHES, build)


def jax(run: Run) -> Compiled:
    """The sampler in JAX, given conditioning logits."""
    subject = run.subject
    packed = pack_prior(subject.model.prior)
    comparator = Compiled(
        run,
        "jax",
        JAX_BATCHES,
        lambda batch: jax_sampler.sampler(packed, subject.job(batch), run.threads),
    )
    comparator.problem = jax_sampler.problem() or comparator.problem
    return comparator


def measure(run: Run, batch: int, comparators: list[Compiled]) -> Record:
    """All timings of one batch size, in seconds per image."""
    subject = run.subject
    works: dict[str, Callable[[], object]] = {
        "engine": subject.engine_alone(batch),
        "call": subject.whole_call(batch),
        "eager": subject.whole_call(batch, "torch"),
        "naive": subject.prior_forward(batch),
    }
    for comparator in comparators:
        works |= comparator.work(batch)
    if not ENGINE.reasons(subject.config, torch.device("cpu"), "bf16"):
        works["bf16"] = subject.engine_alone(batch, "bf16")
    timings: dict[str, Timing] = {
        name: timing.times(1 / batch) for name, timing in run.interleaved(works).items()
    }
    timings["naive"] = timings["naive"].times(subject.pixels * subject.config.channels)
    alone = run.with_bounds(subject, batch, timings["engine"])
    low_pixels = subject.low_size[0] * subject.low_size[1]
    network = subject.model.conditioning
    call_bound = alone["bound"] + run.limits.arithmetic(
        conditioning_multiply_adds(network, low_pixels)
    )
    call = timings["call"].median
    engine = timings["engine"].median
    return {
        "batch": batch,
        **timings,
        **alone,
        "call_bound": call_bound,
        "call_ratio": call / call_bound,
        **{
            f"by_{name}": timings[name].median / call
            for name in ("eager", "compiled", "naive")
            if name in timings
        },
        **({"by_bf16": engine / timings["bf16"].median} if "bf16" in timings else {}),
        **({"by_jax": timings["jax"].median / engine} if "jax" in timings else {}),
    }


def targets(run: Run, records: dict[int, Record]) -> None:
    """Check the targets of each batch size."""
    avx2 = chosen_instruction_set() == "avx2"
    before: Record | None = None
    for batch, record in records.items():
        most = 1.3 if avx2 or 1 < batch < 16 else 1.25 if batch == 1 else 1.15
        run.target(f"batch {batch}: engine over its bound", record["ratio"], most=most)
        if before is not None:
            slower = record["call"].median / before["call"].median
            name = f"batch {batch}: an image over one of batch {before['batch']}"
            run.target(name, slower, most=1.02)  # two batches may both be at the bound
        before = record
        if batch not in (1, 16, 64):
            continue
        naive = 2500 if batch == 1 else 5000
        run.target(f"batch {batch}: faster than naive", record["by_naive"], least=naive)
        if batch == 64 and chosen_instruction_set() == "avx512bf16":
            run.target(f"batch {batch}: bf16 faster than fp32", record["by_bf16"], least=1.5)
        eager = {1: 40, 16: 8}.get(batch)
        if eager:
            run.target(f"batch {batch}: faster than cached eager", record["by_eager"], least=eager)
