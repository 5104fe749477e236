"""Speed of the engine ``cuda`` on a GPU, time by phase, and hardware limits.

    python -m benchmarks.gpu_cuda [--preset paper] [--json gpu-cuda.json] [--quick]

It prints the limits of the GPU and the clocks per sub-pixel by phase (``gpu_cuda_clocks.py``). Then
every variant of the kernels is checked with SPEC's test and timed: with and without look-ahead, and
fp32 as two fp16 or two tf32 numbers. Then come milliseconds and images per second by batch size,
whose images are checked by ``python -m benchmarks.gpu --engine cuda``, and last the engine
``triton`` and PyTorch under CUDA graphs. A measurement that fails is reported, and the rest still
runs. The exit code is 1 if a variant fails its check or a measurement fails.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import torch

import prsr
from benchmarks.gpu_bench import Bench
from benchmarks.gpu_checks import TRUTHS, Checks, sampling_inputs, violation
from benchmarks.gpu_cuda_clocks import clocks_by_phase, measure_clocks, sub_pixels
from benchmarks.gpu_figures import as_cuda_graph, comparators, time_calls, triton_record
from benchmarks.report import Column, Record, Report, ms, times
from benchmarks.stages import CANNOT_SERVE
from prsr.engines import cuda
from prsr.engines.cuda_formats import PRECISIONS
from prsr.engines.cuda_layout import CUDAWeights, lay_out
from prsr.engines.grouped_weights import pack_prior

SECONDS = {"fp32": 0.015, "fp16": 0.010, "bf16": 0.010}
"""The most seconds for one image."""

RATES = {"fp32": 25_000, "fp16": 100_000, "bf16": 100_000}
"""The fewest images per second in the best batch."""


def batch_record(bench: Bench, precision: str, batch: int) -> Record:
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


def measure_variants(bench: Bench, checks: Checks) -> None:
    """Check and time every variant, and print the table."""
    bench.report.table(
        "variants",
        "Variants of the kernels, one image" + bench.dry,
        [
            Column("variant", "variant"),
            Column("violation", "CDF violation", "{:.2g}".format),
            Column("alone", "engine alone", ms),
            Column("layer", "chain, clocks per layer", "{:,.0f}".format),
        ],
        list(variants(bench, checks)),
    )


def measure_batches(bench: Bench, checks: Checks, batches: list[int]) -> list[Record]:
    """Time all batch sizes in every precision, and print the table."""
    records: list[Record] = []
    for precision in PRECISIONS:
        for batch in batches:
            with checks.attempt(f"{precision}, batch {batch}"):
                records.append(batch_record(bench, precision, batch))
                # Print at once, in seconds, in case the process is ended.
                print(json.dumps(records[-1]), flush=True)
                bench.release_memory()
    bench.report.table(
        "cuda",
        "Engine cuda, milliseconds per batch" + bench.dry,
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
    return records


def compare(bench: Bench, checks: Checks, records: list[Record]) -> list[Record]:
    """Time the engine ``triton``, and PyTorch under CUDA graphs in fp32, on the same batches."""
    compared: list[Record] = []
    for own in records:
        batch, precision = own["batch"], own["precision"]
        with checks.attempt(f"comparators, {precision}, batch {batch}"):
            job = bench.job(batch)
            triton = triton_record(bench, job, precision)["alone"]
            record = {
                **{name: own[name] for name in ("precision", "batch", "alone")},
                "triton": triton,
                "by_triton": triton / own["alone"],
            }
            if precision == "fp32":
                graphs = comparators(bench, job, ["graphs"])["graphs"]
                record |= {"graphs": graphs, "by_graphs": graphs / own["alone"]}
            compared.append(record)
            print(json.dumps(record), flush=True)
            del job
            bench.release_memory()
    bench.report.table(
        "compared",
        "Milliseconds per batch, engines alone" + bench.dry,
        [
            Column("precision", ""),
            Column("batch", "batch"),
            Column("alone", "cuda", ms),
            Column("triton", "triton", ms),
            Column("by_triton", "faster by", times),
            Column("graphs", "torch, CUDA graphs", ms),
            Column("by_graphs", "faster by", times),
        ],
        compared,
    )
    return compared


def check_own_targets(bench: Bench, records: list[Record]) -> None:
    """Print which targets of times and rates are met."""
    report = bench.report
    for record in records:
        if record["batch"] == 1:
            most = SECONDS[record["precision"]]
            what = f"one image in {record['precision']}, ms"
            report.target(what, record["call"], most=most, show=ms)
    for precision, least in RATES.items():
        rates = [record["rate"] for record in records if record["precision"] == precision]
        if rates:
            what = f"images per second in {precision}"
            report.target(what, max(rates), least=least, show="{:,.0f}".format)


def check_compared_targets(bench: Bench, compared: list[Record]) -> None:
    """Print whether the engine is so many times as fast as the comparators at every batch size."""
    for name, whose, least in (
        ("by_triton", "triton", 2),
        ("by_graphs", "torch under CUDA graphs", 10),
    ):
        factors = [record[name] for record in compared if name in record]
        if factors:
            what = f"faster than {whose}, at least"
            bench.report.target(what, min(factors), least=least)


def measure(bench: Bench, batches: list[int]) -> int:
    """Measure and print all tables; returns the number of failed checks and measurements."""
    checks = Checks("cuda")
    bench.report.results["checks"] = checks.outcomes
    measure_clocks(bench, checks)
    measure_variants(bench, checks)
    records = measure_batches(bench, checks, batches)
    if bench.dry_run:  # the engine triton would take minutes
        return checks.failures()
    has_targets = bench.config == prsr.PRESETS["paper"]
    if has_targets:
        check_own_targets(bench, records)
    compared = compare(bench, checks, records)
    if has_targets:
        check_compared_targets(bench, compared)
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
    bench = Bench(config, device, chosen.quick, Report(chosen.json))
    batches = [1, 128, 2048] if chosen.quick else [1, 16, 128, 256, 1024, 2048, 4096]
    failures = measure(bench, batches)
    bench.report.write()
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
