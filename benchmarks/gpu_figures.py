"""Speed of the engine ``triton`` on a GPU, with its bound and PyTorch comparators.

All times are measured with CUDA events around whole calls. ``triton.testing.do_bench`` would
measure something else: it queues calls without waiting for each, which hides the CPU time of a
call, and it clears the L2 cache, in which successive rows find their weights. On a CPU the same
code runs in Triton's interpreter without CUDA graphs, with wall-clock times, as a dry run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial

import torch

import prsr
from benchmarks.bounds import PARTS, count_work, streamed_bytes
from benchmarks.compiled import CompiledEngine
from benchmarks.gpu_bench import Bench
from benchmarks.report import Column, Record, ms, times
from benchmarks.timing import Timing, timed
from prsr.engines.base import Job
from prsr.engines.grouped_weights import pack_prior
from prsr.engines.torch import TorchEngine, horizontal_pixel, vertical_row
from prsr.engines.triton import TritonEngine, launches
from prsr.utils.torch_settings import exact_fp32

CACHE_BYTES = 64
"""Bytes per clock that a multiprocessor can read from the L2 cache."""

BOUND = (
    "Bound: the larger of all arithmetic at the peak rate of torch's GEMMs, and of reading weights"
    "\n"
    f"once per pixel at {CACHE_BYTES} bytes per clock. It ignores the latency between layers."
)

COMPILED = (1, 256, 4096)
"""Batch sizes of the compiled comparator. Compiling doubles the time of a batch size. The largest
is included, because PyTorch is closest to the engine there."""

NAIVE = 256
"""Largest batch of the naive sampler; larger ones are not faster per image and need much memory."""


def device_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds from the start of ``work`` to the end of its operations on the device."""
    if device.type == "cpu":
        return timed(work)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return 1e-3 * start.elapsed_time(end)


def time_calls(bench: Bench, work: Callable[[], object], rounds: int, calls: int = 1) -> Timing:
    """Seconds per call; ``calls`` are timed together, to hide the launch latency of the first."""
    if bench.dry_run:
        return Timing((device_seconds(work, bench.device),))

    def repeated() -> None:
        for _ in range(calls):
            work()

    repeated()
    torch.cuda.synchronize(bench.device)  # otherwise the first round would wait for it
    seconds = [device_seconds(repeated, bench.device) for _ in range(rounds)]
    return Timing(tuple(seconds)).times(1 / calls)


def as_cuda_graph(bench: Bench, work: Callable[[], object]) -> Callable[[], object]:
    """The work captured as a CUDA graph; unchanged on a CPU."""
    if bench.dry_run:
        return work
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # compiles, tunes and allocates, which is not allowed during capture
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def triton_record(bench: Bench, job: Job, precision: str) -> Record:
    """Seconds per batch of the engine ``triton``: all rows, as a CUDA graph, and by kernel."""
    engine, height = TritonEngine(), bench.size[0]
    packed = engine.pack(bench.model.prior, precision)

    def rows() -> None:
        with exact_fp32(bench.device):
            state = engine.start(packed, job)
            for y in range(height):
                engine.row(state, y)

    rounds = 3 if bench.quick else 9
    whole = time_calls(bench, rows, rounds)
    captured = time_calls(bench, as_cuda_graph(bench, rows), rounds)
    state = engine.start(packed, job)
    engine.row(state, 0)
    vertical, horizontal = (
        time_calls(bench, partial(each.kernel[(each.programs,)], **each.arguments), 5, calls=4)
        for each in launches(state, 1)
    )
    return {
        "alone": whole.median,
        "captured": captured.median,
        "vertical": height * vertical.median,
        "horizontal": height * horizontal.median,
    }


COMPARATORS = ("eager", "graphs", "compiled", "naive")


def comparators(bench: Bench, job: Job, names: Sequence[str] = COMPARATORS) -> Record:
    """Seconds per batch of the PyTorch comparators, extrapolated from single steps."""
    height, width = bench.size
    pixels, batch = height * width, len(job.image)
    engine = TorchEngine()
    with exact_fp32(bench.device):
        state = engine.start(engine.pack(bench.model.prior, "fp32"), job)
        logits = job.logits[:, :, :, 0].permute(3, 2, 0, 1).contiguous()
        pixel = partial(horizontal_pixel, state, 0, 0, logits[0])
        row = partial(vertical_row, state, 0)
        rows = height * time_calls(bench, as_cuda_graph(bench, row), 5, calls=4).median
        record: Record = {}
        if "eager" in names:
            seconds = time_calls(bench, row, 5).median, time_calls(bench, pixel, 5).median
            record["eager"] = height * seconds[0] + pixels * seconds[1]
        if "graphs" in names:
            graph = as_cuda_graph(bench, pixel)
            record["graphs"] = rows + pixels * time_calls(bench, graph, 5, calls=20).median
        if "compiled" in names and batch in COMPILED:
            compiled = CompiledEngine()
            compiled.pack(bench.model.prior, "fp32")
            step = as_cuda_graph(bench, partial(compiled.draw_pixel, state, 0, 0, logits[0]))
            record["compiled"] = rows + pixels * time_calls(bench, step, 5, calls=20).median
        if "naive" in names and batch <= NAIVE:
            forward = as_cuda_graph(bench, partial(bench.model.prior, job.image))
            forwards = pixels * bench.config.channels
            record["naive"] = forwards * time_calls(bench, forward, 3).median
    return record


def peak(bench: Bench, dtype: torch.dtype) -> float:
    """Floating-point operations per second of torch's GEMM on large matrices."""
    side = 64 if bench.dry_run else 8192
    a, b = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in range(2))
    with exact_fp32(bench.device):
        return 2 * side**3 / time_calls(bench, partial(torch.matmul, a, b), 5, calls=3).median


def bound(bench: Bench, dtype: torch.dtype, best: float, clock: float | None, batch: int) -> float:
    """Seconds per batch: the larger of all arithmetic at the peak, and of reading weights.

    Every program reads the weights of the horizontal stack and the head once per pixel, at the rate
    at which a multiprocessor can read the cache.
    """
    parts = count_work(pack_prior(bench.model.prior))
    pixels = bench.size[0] * bench.size[1]
    arithmetic = 2 * batch * pixels * sum(parts[name].multiply_adds for name in PARTS) / best
    if clock is None:
        return arithmetic
    streamed = streamed_bytes(parts) * dtype.itemsize / torch.float32.itemsize
    return max(arithmetic, pixels * streamed / (CACHE_BYTES * clock))


def measure_speed(bench: Bench, batches: list[int], clock: float | None) -> None:
    """Measure all batch sizes, print the tables and check the targets.

    Args:
        bench: model and device.
        batches: batch sizes.
        clock: of the multiprocessors in Hz; None if unknown.
    """
    records: list[Record] = []
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        best = peak(bench, dtype)
        sampler = prsr.Sampler(bench.model, engine="triton", precision=precision)
        for batch in batches:
            call = partial(sampler.sample, bench.images(batch), seed=0)
            whole = time_calls(bench, call, 3).median
            job = bench.job(batch)
            record: Record = {
                "precision": precision,
                "batch": batch,
                "call": whole,
                "rate": batch / whole,
                "bound": bound(bench, dtype, best, clock, batch),
            }
            record |= triton_record(bench, job, precision)
            if precision == "fp32":
                record |= comparators(bench, job)
                strongest = min(record[name] for name in ("graphs", "compiled") if name in record)
                record["faster"] = strongest / record["alone"]
            records.append(record)
            # Print at once, in seconds, so that it is not lost if a larger batch fails.
            print(json.dumps(record), flush=True)
            del job
            bench.release_memory()
    which = [Column("precision", ""), Column("batch", "batch")]
    bench.report.table(
        "figures",
        "Milliseconds per batch" + bench.dry,
        [
            *which,
            Column("call", "whole call", ms),
            Column("rate", "images/s", "{:,.0f}".format),
            Column("alone", "engine alone", ms),
            Column("captured", "as a CUDA graph", ms),
            Column("vertical", "vertical", ms),
            Column("horizontal", "horizontal", ms),
            Column("bound", "bound", ms),
        ],
        records,
        BOUND,
    )
    bench.report.table(
        "comparators",
        "Milliseconds per batch of the comparators, extrapolated from single steps" + bench.dry,
        [
            *which,
            Column("eager", "torch", ms),
            Column("graphs", "its CUDA graphs", ms),
            Column("compiled", "compiled, CUDA graphs", ms),
            Column("naive", "naive, CUDA graphs", ms),
            Column("faster", "engine alone, speedup over the best", times),
        ],
        [record for record in records if "faster" in record],
    )
    if bench.config == prsr.PRESETS["paper"]:
        rate = max(r["rate"] for r in records if r["precision"] == "bf16")
        least = min(r["faster"] for r in records if "faster" in r)
        bench.report.target("one image, ms", records[0]["call"], most=0.1, show=ms)
        bench.report.target("images per second in bf16", rate, least=5000, show="{:,.0f}".format)
        bench.report.target("against torch under CUDA graphs", least, least=10)
