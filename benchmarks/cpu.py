"""Speed and memory of the engine ``cpu``, with bounds measured in the same run.

    python -m benchmarks.cpu [--preset paper] [--runs 3] [--quick] [--json FILE]

It first measures the machine's peak of fused multiply-adds and its cache bandwidth, and checks that
the engine samples correctly; if not, it exits. Times are medians with quartiles; compared work is
timed in turn, and again if other work took more than 3% of the cores meanwhile. The targets are for
the preset ``paper`` on an otherwise idle machine with AVX2 and 2 cores. It takes about five
minutes; with ``--quick``, one. ``pip install jax`` adds a sampler in JAX to the comparison.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import prsr
from benchmarks import machine
from benchmarks.batches import batches
from benchmarks.contention import contention
from benchmarks.growth import sizes, widths
from benchmarks.memory import memory
from benchmarks.report import Report, megabytes
from benchmarks.run import ATTEMPTS, Run
from benchmarks.split import split
from benchmarks.subject import EPSILON
from benchmarks.trained import trained
from prsr.engines.cpu import BUNDLE


def describe(run: Run) -> None:
    """Print the machine, its limits and the definition of the bounds."""
    run.report.results["limits"] = dataclasses.asdict(run.limits)
    run.report.print_facts("machine", machine.describe())
    counts = (f"{name} {part.multiply_adds:,}" for name, part in run.subject.parts.items())
    run.report.print_facts(
        "bounds",
        {
            "preset": run.preset,
            "multiply-adds per pixel": ", ".join(counts),
            "peak": f"{run.limits.peak / 1e9:,.0f} GFLOP/s in fused multiply-adds",
            "cache": f"{run.limits.bandwidth / 1e9:,.0f} GB/s for a working set of "
            f"{megabytes(run.streamed)} MB, the weights of the horizontal stack and head",
            "bound of an image": "vertical stack: FLOPs / peak; horizontal stack and head: the "
            "larger of FLOPs / peak and bytes / bandwidth / batch",
        },
    )


def check(run: Run) -> None:
    """Exit unless the engine samples what the training network defines, for several batch sizes."""
    batches = 1, 6, BUNDLE * run.threads
    images = (run.subject.whole_call(batch)() for batch in batches)
    worst = max(run.subject.violation(hr) for hr in images)
    if not worst <= EPSILON:
        sys.exit(f"not measured, because the engine is wrong: cdf_violation {worst:.1e}")
    run.report.print_facts("check", {"cdf_violation": f"{worst:.1e}, at most {EPSILON:.0e}"})


def measure(part: Callable[[Run], None], run: Run) -> None:
    """Run a part of the benchmark; warn if other work took a share of it.

    Prints the round trip between two threads before and after. The time of an image that two
    threads share depends on it, and the host of a virtual machine may move its cores at any time.
    """
    other_work, before = machine.OtherWork(), machine.round_trip()
    part(run)
    share, after = other_work.share(), machine.round_trip()
    run.report.results["other_work"][part.__name__] = share
    run.report.results["round_trips"][part.__name__] = before, after
    run.report.console.print(
        f"A message from a thread to another and back took {1e9 * before:,.0f} ns before and "
        f"{1e9 * after:,.0f} ns after."
    )
    if share > machine.DISTURBED:
        warning = (
            f"Other work took {share:.0%} of the cores meanwhile. Tables of batches, sizes and "
            f"widths hold the least disturbed of up to {ATTEMPTS} measurements."
        )
        run.report.console.print(f"[red]{warning}[/red]")


def remeasure_limits(run: Run) -> None:
    """Print how the machine's limits have changed since the beginning."""
    after = machine.limits(run.streamed, run.threads)
    run.report.results["limits_at_the_end"] = dataclasses.asdict(after)
    run.report.console.print(
        f"\nAt the end, the peak is {after.peak / run.limits.peak:.0%} and the cache's bandwidth "
        f"{after.bandwidth / run.limits.bandwidth:.0%} of what they were at the beginning."
    )


def main() -> None:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="paper", choices=list(prsr.PRESETS))
    parser.add_argument(
        "--runs",
        type=int,
        default=3,
        choices=range(1, 101),
        metavar="N",
        help="rounds in which the compared work is timed in turn",
    )
    parser.add_argument("--quick", action="store_true", help="fewer sizes, one round, no compiler")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    options = parser.parse_args()
    report = Report(options.json)
    run = Run(options.preset, 1 if options.quick else options.runs, options.quick, report)
    describe(run)
    check(run)
    for part in (batches, trained, split, sizes, widths, contention, memory):
        measure(part, run)
    remeasure_limits(run)
    report.write()


if __name__ == "__main__":
    main()
