"""Speed of the engine ``cuda`` on a GPU, time by phase, and hardware limits.

    python -m benchmarks.gpu_cuda [--preset paper] [--json gpu-cuda.json] [--quick]

It prints the clocks per sub-pixel of one image by phase, and microbenchmarks of the operations that
the kernels consist of, each with the value that the design assumed for an H100 before any GPU had
run it, and the consequence of another value. Then every variant of the kernels is checked with
SPEC's test and timed: with and without look-ahead, and fp32 as two fp16 or two tf32 numbers. Last
come milliseconds and images per second by batch size, whose images are checked by ``python -m
benchmarks.gpu --engine cuda``. The exit code is 1 if a variant fails its check.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch

import prsr
from benchmarks.gpu_bench import Bench
from benchmarks.gpu_checks import TRUTHS, Checks, sampling_inputs, violation
from benchmarks.gpu_figures import as_cuda_graph, time_calls
from benchmarks.report import Column, Record, Report, ms
from benchmarks.stages import CANNOT_SERVE
from prsr.engines import cuda
from prsr.engines.base import Job
from prsr.engines.cuda_formats import PRECISIONS
from prsr.engines.cuda_layout import CUDAWeights, lay_out
from prsr.engines.grouped_weights import pack_prior

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
    "chain, a layer": Expected("131; fp32 290", "not below 180 and 400: look-ahead off"),
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


def clocks_by_phase(bench: Bench, weights: CUDAWeights, job: Job) -> dict[str, int]:
    """Clocks of one block by phase, over all rows except the first."""
    engine = cuda.CUDAEngine()
    state = engine.start(weights, job)
    engine.row(state, 0)
    names = cuda.phases()
    clocks = torch.zeros(len(names), dtype=torch.int64, device=bench.device)
    state.horizontal["clocks"] = clocks
    engine.rows(state, 1, bench.size[0])
    return dict(zip(names, clocks.tolist(), strict=True))


def sub_pixels(bench: Bench) -> int:
    """The number of sub-pixels that :func:`clocks_by_phase` counts."""
    height, width = bench.size
    return (height - 1) * width * bench.config.channels


def phases(bench: Bench, precision: str, job: Job) -> Iterator[Record]:
    """Clocks per sub-pixel by phase."""
    weights = cuda.CUDAEngine().pack(bench.model.prior, precision)
    for name, total in clocks_by_phase(bench, weights, job).items():
        what, count = name, sub_pixels(bench)
        if name == "chain":
            what, count = "chain, a layer", sub_pixels(bench) * bench.config.prior_layers
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


def variants(bench: Bench, checks: Checks) -> Iterator[Record]:
    """Every variant of the kernels: SPEC's test of some images, and the time of one image."""
    engine, batch = cuda.CUDAEngine(), 2 if bench.dry_run else 16
    packed = pack_prior(bench.model.prior)
    seen = set()
    for precision, look_ahead, split in product(PRECISIONS, (True, False), (True, False)):
        weights = lay_out(packed, precision, look_ahead=look_ahead, split=split)
        variant = weights.variant
        if variant in seen:
            continue
        seen.add(variant)
        name = f"{variant.horizontal}{', look-ahead' if variant.look_ahead else ''}"
        with checks.attempt(name):
            job = bench.job(batch)
            engine.rows(engine.start(weights, job), 0, bench.size[0])
            make_truth, limit = TRUTHS[precision]
            call = sampling_inputs(bench, batch)
            worst = violation(make_truth(bench.model), call, job.image)
            checks.require(worst <= limit, f"{name}: CDF violation {worst:.2g}")
            yield variant_record(bench, weights, name, worst)


def variant_record(bench: Bench, weights: CUDAWeights, name: str, worst: float) -> Record:
    """A row of the table of variants."""
    engine, job = cuda.CUDAEngine(), bench.job(1)

    def rows() -> None:
        engine.rows(engine.start(weights, job), 0, bench.size[0])

    chain = clocks_by_phase(bench, weights, job)["chain"]
    return {
        "variant": name,
        "violation": worst,
        "alone": time_calls(bench, rows, 3 if bench.quick else 9).median,
        "layer": chain / sub_pixels(bench) / bench.config.prior_layers,
    }


def measure(bench: Bench, batches: list[int]) -> int:
    """Measure and print all tables; returns the number of failed checks."""
    dry = ", dry run on a CPU" if bench.dry_run else ""
    clocks: list[Record] = list(measurements(bench))
    for precision in PRECISIONS:
        clocks += phases(bench, precision, bench.job(1))
    bench.report.table(
        "clocks",
        "Clocks per sub-pixel of one image, by phase" + dry,
        [
            Column("what", ""),
            Column("measured", "measured", "{:,.0f}".format),
            Column("expected", "assumed"),
            Column("otherwise", "if otherwise"),
        ],
        clocks,
    )
    checks = Checks("cuda")
    bench.report.table(
        "variants",
        "Variants of the kernels, one image" + dry,
        [
            Column("variant", "variant"),
            Column("violation", "CDF violation", "{:.2g}".format),
            Column("alone", "engine alone", ms),
            Column("layer", "chain, clocks per layer", "{:,.0f}".format),
        ],
        list(variants(bench, checks)),
    )
    bench.report.results["checks"] = checks.outcomes
    records: list[Record] = []
    for precision in PRECISIONS:
        for batch in batches:
            records.append(record(bench, precision, batch))
            # Print at once, in seconds, so that it is not lost if a larger batch fails.
            print(json.dumps(records[-1]), flush=True)
            if not bench.dry_run:
                torch.cuda.empty_cache()
    bench.report.table(
        "cuda",
        "Engine cuda, milliseconds per batch" + dry,
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
    if bench.config == prsr.PRESETS["paper"] and not bench.dry_run:
        calls = {r["precision"]: r["call"] for r in records if r["batch"] == 1}
        rates = {p: max(r["rate"] for r in records if r["precision"] == p) for p in PRECISIONS}
        bench.report.target("one image in bf16, ms", calls["bf16"], most=0.025, show=ms)
        bench.report.target("one image in fp32, ms", calls["fp32"], most=0.015, show=ms)
        show = "{:,.0f}".format
        bench.report.target("images per second in bf16", rates["bf16"], least=40_000, show=show)
        bench.report.target("images per second in fp32", rates["fp32"], least=25_000, show=show)
    return checks.failures()


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
    failures = 0
    try:
        failures = measure(
            bench, [1, 128, 2048] if chosen.quick else [1, 16, 128, 256, 1024, 2048, 4096]
        )
    finally:
        if chosen.json:
            bench.report.write(chosen.json)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
