"""Speed of the engine ``cuda`` on a GPU, time by phase, and hardware limits.

    python -m benchmarks.gpu_cuda [--preset paper] [--json gpu-cuda.json] [--quick]

It prints the clocks per sub-pixel of one image by phase, and microbenchmarks of the operations that
the kernels consist of, each with the value that the design assumed for an H100 before any GPU had
run it, and the consequence of another value; then milliseconds and images per second. The images
are checked by ``python -m benchmarks.gpu --engine cuda``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

import prsr
from benchmarks.gpu_bench import Bench
from benchmarks.gpu_figures import as_cuda_graph, time_calls
from benchmarks.report import Column, Record, Report, ms
from benchmarks.stages import CANNOT_SERVE
from prsr.engines import cuda
from prsr.engines.base import Job
from prsr.engines.cuda_formats import PRECISIONS

SCRATCH = 32 * 2**20  # bytes that the microbenchmarks read


class Expected(NamedTuple):
    """The value that the design assumed, and the consequence of another one."""

    clocks: str
    otherwise: str


EXPECTED = {
    "hop to 1": Expected("230", "above 450: clusters of 8 at most"),
    "hop to 16": Expected("280", "above 450: clusters of 8 at most"),
    "cluster barrier": Expected("over 400", "it confirms that no loop has one"),
    "MAC a clock": Expected("1,270", "below 1,000: wgmma next"),
    "L2 bytes a clock, one": Expected("60", "below 40: weights into shared memory"),
    "L2 bytes a clock, all": Expected("28", "below 22: multicast of weights next"),
    "launch gap, us": Expected("1 to 3", "above 5% of an image: rows in one launch"),
}
PHASES = {
    "chain, a layer": Expected("180; fp32 400", "look-ahead takes 131; fp32 290"),
    "head": Expected("600", "above 800: weights into shared memory"),
    "late": Expected("700", "above 1,000: later than the draw, by idle warps"),
    "logits": Expected("230", "above 450: clusters of 8 at most"),
    "draw": Expected("530", ""),
}


def record(bench: Bench, precision: str, batch: int) -> Record:
    """Seconds per batch: the whole call, all rows, as a CUDA graph, and by kernel."""
    sampler = prsr.Sampler(bench.model, engine="cuda", precision=precision)
    whole = time_calls(bench, partial(sampler.sample, bench.images(batch), seed=0), 3).median
    engine, height, job = cuda.CUDAEngine(), bench.size[0], bench.job(batch)
    packed = engine.pack(bench.model.prior, precision)

    def rows() -> None:
        state = engine.start(packed, job)
        engine.rows(state, 0, height)

    rounds = 3 if bench.quick else 9
    state = engine.start(packed, job)
    engine.row(state, 0)
    vertical, horizontal = (
        height * time_calls(bench, partial(launch, state, 1), 5, calls=4).median
        for launch in (cuda.launch_vertical, cuda.launch_horizontal)
    )
    return {
        "precision": precision,
        "batch": batch,
        "cluster": f"{state.plan.cluster}×{state.plan.tiles}",
        "call": whole,
        "rate": batch / whole,
        "alone": time_calls(bench, rows, rounds).median,
        "captured": time_calls(bench, as_cuda_graph(bench, rows), rounds).median,
        "vertical": vertical,
        "horizontal": horizontal,
    }


def phases(bench: Bench, precision: str, job: Job) -> Iterator[Record]:
    """Clocks per sub-pixel by phase, over all rows except the first."""
    engine = cuda.CUDAEngine()
    state = engine.start(engine.pack(bench.model.prior, precision), job)
    engine.row(state, 0)
    names = cuda.phases()
    clocks = torch.zeros(len(names), dtype=torch.int64, device=bench.device)
    state.horizontal["clocks"] = clocks
    height, width = bench.size
    engine.rows(state, 1, height)
    sub_pixels = (height - 1) * width * bench.config.channels
    for name, total in zip(names, clocks.tolist(), strict=True):
        what, count = name, sub_pixels
        if name == "chain":
            what, count = "chain, a layer", sub_pixels * bench.config.prior_layers
        expected = PHASES[what]
        yield {
            "what": f"{precision}: {what}",
            "measured": total / count,
            "expected": expected.clocks,
            "otherwise": expected.otherwise,
        }


def measurements(bench: Bench) -> Iterator[Record]:
    """Microbenchmarks of the operations that the kernels consist of."""
    for what, value in cuda.measure(bench.device, SCRATCH).items():
        expected = EXPECTED[what]
        yield {
            "what": what,
            "measured": value,
            "expected": expected.clocks,
            "otherwise": expected.otherwise,
        }


def measure(bench: Bench, batches: list[int]) -> None:
    """Measure and print all tables."""
    rehearsed = ", dry run on a CPU" if bench.rehearsal else ""
    clocks: list[Record] = list(measurements(bench))
    for precision in PRECISIONS:
        clocks += phases(bench, precision, bench.job(1))
    bench.report.table(
        "clocks",
        "Clocks per sub-pixel of one image, by phase" + rehearsed,
        [
            Column("what", ""),
            Column("measured", "measured", "{:,.0f}".format),
            Column("expected", "assumed"),
            Column("otherwise", "if otherwise"),
        ],
        clocks,
    )
    records: list[Record] = []
    for precision in PRECISIONS:
        for batch in batches:
            records.append(record(bench, precision, batch))
            # Print at once, in seconds, so that it is not lost if a larger batch fails.
            print(json.dumps(records[-1]), flush=True)
            if not bench.rehearsal:
                torch.cuda.empty_cache()
    bench.report.table(
        "cuda",
        "Engine cuda, milliseconds per batch" + rehearsed,
        [
            Column("precision", ""),
            Column("batch", "batch"),
            Column("cluster", "blocks×tiles"),
            Column("call", "whole call", ms),
            Column("rate", "images/s", "{:,.0f}".format),
            Column("alone", "engine alone", ms),
            Column("captured", "as a CUDA graph", ms),
            Column("vertical", "vertical", ms),
            Column("horizontal", "horizontal", ms),
        ],
        records,
    )
    if bench.config == prsr.PRESETS["paper"] and not bench.rehearsal:
        bars = {r["precision"]: r["call"] for r in records if r["batch"] == 1}
        rates = {p: max(r["rate"] for r in records if r["precision"] == p) for p in PRECISIONS}
        bench.report.bar("one image in bf16, ms", bars["bf16"], most=0.025, show=ms)
        bench.report.bar("one image in fp32, ms", bars["fp32"], most=0.015, show=ms)
        show = "{:,.0f}".format
        bench.report.bar("images per second in bf16", rates["bf16"], least=40_000, show=show)
        bench.report.bar("images per second in fp32", rates["fp32"], least=25_000, show=show)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="paper", choices=list(prsr.PRESETS))
    parser.add_argument("--quick", action="store_true", help="fewer batches and rounds")
    parser.add_argument("--json", type=Path, help="also write the results here")
    chosen = parser.parse_args()
    config, device = prsr.PRSRConfig.preset(chosen.preset), torch.device("cuda")
    if reasons := prsr.list_engines(config, device)["cuda"]:
        print(f"engine cuda does not support this machine: {'; '.join(reasons)}")
        sys.exit(CANNOT_SERVE)
    bench = Bench(config, device, chosen.quick, Report())
    try:
        measure(bench, [1, 128, 2048] if chosen.quick else [1, 16, 128, 256, 1024, 2048, 4096])
    finally:
        if chosen.json:
            bench.report.write(chosen.json)


if __name__ == "__main__":
    main()
