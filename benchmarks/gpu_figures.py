"""How fast the engine ``triton`` is on a GPU, with its bound and what PyTorch has without prsr.

Everything is timed from one event of the GPU to another. On a CPU the same code runs, in the
interpreter and without CUDA graphs, by the clock on the wall: a rehearsal, and no figure.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import torch

import prsr
from benchmarks.bounds import PARTS, needed, streamed_bytes
from benchmarks.compiled import CompiledEngine
from benchmarks.gpu_bench import Bench
from benchmarks.report import Column, Record, ms, times
from benchmarks.timing import Timing, timed
from prsr.engines.base import Job
from prsr.engines.packing import pack_prior
from prsr.engines.torch import TorchEngine, horizontal_pixel, vertical_row
from prsr.engines.triton import TritonEngine, launches
from prsr.utils.torch_settings import exact_fp32

CACHE_BYTES = 64
"""That a multiprocessor can read of the second-level cache in a clock."""

BOUND = (
    "Bound: the longer of all arithmetic at the peak of torch's products, and of reading weights\n"
    f"once a pixel at {CACHE_BYTES} bytes a clock. That each layer waits for the one before is not "
    "in it."
)

COMPILED = (1, 256, 4096)
"""Batches at which PyTorch's pixel is compiled: each takes about as long as all else of a batch.
The largest is among them, for there PyTorch comes nearest."""

NAIVE = 256
"""Largest batch of naive forwards: more do not get faster, and fill the memory."""


def span(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that the device takes for it."""
    if device.type == "cpu":
        return timed(work)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return 1e-3 * start.elapsed_time(end)


def seconds(bench: Bench, work: Callable[[], object], rounds: int, calls: int = 1) -> Timing:
    """Of one call; ``calls`` in a row are timed, so that queueing the first does not count."""
    if bench.rehearsal:
        return Timing((span(work, bench.device),))

    def repeated() -> None:
        for _ in range(calls):
            work()

    repeated()
    torch.cuda.synchronize(bench.device)  # or the first round would be queued behind it
    taken = [span(repeated, bench.device) for _ in range(rounds)]
    return Timing(tuple(taken)).times(1 / calls)


def replayed(bench: Bench, work: Callable[[], object]) -> Callable[[], object]:
    """The work as a CUDA graph; as it is where there are none."""
    if bench.rehearsal:
        return work
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # compiles, tunes and allocates what may not be while it is captured
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def triton_record(bench: Bench, job: Job, precision: str) -> Record:
    """Seconds a batch of the engine ``triton``: all rows, as a CUDA graph, and by kernel."""
    engine, height = TritonEngine(), bench.size[0]
    packed = engine.pack(bench.model.prior, precision)

    def rows() -> None:
        with exact_fp32(bench.device):
            state = engine.start(packed, job)
            for y in range(height):
                engine.row(state, y)

    rounds = 3 if bench.quick else 9
    whole = seconds(bench, rows, rounds)
    captured = seconds(bench, replayed(bench, rows), rounds)
    state = engine.start(packed, job)
    engine.row(state, 0)
    vertical, horizontal = (
        seconds(bench, partial(launch.kernel[(launch.programs,)], **launch.arguments), 5, calls=4)
        for launch in launches(state, 1)
    )
    return {
        "alone": whole.median,
        "captured": captured.median,
        "vertical": height * vertical.median,
        "horizontal": height * horizontal.median,
    }


def comparators(bench: Bench, job: Job) -> Record:
    """Seconds a batch for PyTorch without prsr: steps timed, and multiplied."""
    height, width = bench.size
    pixels, batch = height * width, len(job.image)
    engine = TorchEngine()
    with exact_fp32(bench.device):
        state = engine.start(engine.pack(bench.model.prior, "fp32"), job)
        logits = job.conditioning[:, :, :, 0].permute(3, 2, 0, 1).contiguous()
        pixel = partial(horizontal_pixel, state, 0, 0, logits[0])
        row = partial(vertical_row, state, 0)
        rows = height * seconds(bench, replayed(bench, row), 5, calls=4).median
        record: Record = {
            "eager": height * seconds(bench, row, 5).median
            + pixels * seconds(bench, pixel, 5).median,
            "graphs": rows + pixels * seconds(bench, replayed(bench, pixel), 5, calls=20).median,
        }
        if batch in COMPILED:
            compiled = CompiledEngine()
            compiled.pack(bench.model.prior, "fp32")
            step = replayed(bench, partial(compiled.draw_pixel, state, 0, 0, logits[0]))
            record["compiled"] = rows + pixels * seconds(bench, step, 5, calls=20).median
        if batch <= NAIVE:
            forward = replayed(bench, partial(bench.model.prior, job.image))
            forwards = pixels * bench.config.channels
            record["naive"] = forwards * seconds(bench, forward, 3).median
    return record


def peak(bench: Bench, dtype: torch.dtype) -> float:
    """Floating-point operations a second of torch's products of large matrices."""
    side = 64 if bench.rehearsal else 8192
    a, b = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in range(2))
    with exact_fp32(bench.device):
        return 2 * side**3 / seconds(bench, partial(torch.matmul, a, b), 5, calls=3).median


def bound(bench: Bench, dtype: torch.dtype, best: float, clock: float | None, batch: int) -> float:
    """Seconds a batch: the longer of all arithmetic at the peak, and of one program's reading.

    The weights of the horizontal stack and the head are read anew for every pixel, by each program
    at once, as fast as a multiprocessor can read the cache.
    """
    parts = needed(pack_prior(bench.model.prior))
    pixels = bench.size[0] * bench.size[1]
    arithmetic = 2 * batch * pixels * sum(parts[name].multiply_adds for name in PARTS) / best
    if clock is None:
        return arithmetic
    streamed = streamed_bytes(parts) * dtype.itemsize / torch.float32.itemsize
    return max(arithmetic, pixels * streamed / (CACHE_BYTES * clock))


def figures(bench: Bench, batches: list[int], clock: float | None) -> None:
    """The table, and the bars.

    Args:
        bench: what is measured.
        batches: images at a time.
        clock: of the multiprocessors, Hz, or None where it is not known.
    """
    records: list[Record] = []
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        best = peak(bench, dtype)
        sampler = prsr.Sampler(bench.model, engine="triton", precision=precision)
        for batch in batches:
            call = partial(sampler.sample, bench.images(batch), seed=0)
            whole = seconds(bench, call, 3).median
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
            # At once, in seconds: if a larger batch fails, this is not lost.
            print(json.dumps(record), flush=True)
            del job
            if not bench.rehearsal:
                torch.cuda.empty_cache()
    rehearsed = ", rehearsed on a CPU: no figures" if bench.rehearsal else ""
    which = [Column("precision", ""), Column("batch", "batch")]
    bench.report.table(
        "figures",
        "Milliseconds a batch" + rehearsed,
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
        "Milliseconds a batch without prsr, steps timed and multiplied" + rehearsed,
        [
            *which,
            Column("eager", "torch", ms),
            Column("graphs", "its CUDA graphs", ms),
            Column("compiled", "compiled, CUDA graphs", ms),
            Column("naive", "naive, CUDA graphs", ms),
            Column("faster", "engine alone against the best", times),
        ],
        [record for record in records if "faster" in record],
    )
    if bench.config == prsr.PRESETS["paper"]:
        rate = max(r["rate"] for r in records if r["precision"] == "bf16")
        least = min(r["faster"] for r in records if "faster" in r)
        bench.report.bar("one image, ms", records[0]["call"], most=0.1, show=ms)
        bench.report.bar("images a second in bf16", rate, least=5000, show="{:,.0f}".format)
        bench.report.bar("against torch under CUDA graphs", least, least=10)
