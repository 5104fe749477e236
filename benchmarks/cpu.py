"""How fast and how lean the engine ``cpu`` is, beside bounds measured in the same run.

    python -m benchmarks.cpu [--preset paper] [--runs 3] [--quick] [--json FILE]

First the machine's peak of fused multiply-adds and its cache's bandwidth, then whether the engine
draws what it should: without that no figure is printed. Times are medians with quartiles; what is
compared is timed in turn. The bars are those of the preset ``paper`` on a machine with AVX2 and 2
cores, which should have nothing else to do. It takes about six minutes, ``--quick`` one.
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
from benchmarks.run import Run
from benchmarks.split import split
from benchmarks.subject import EPSILON
from prsr.engines.cpu import BUNDLE

DISTURBED = 0.03  # of the cores' time


def describe(run: Run) -> None:
    """The machine, its limits, and what they are divided into."""
    run.report.results["limits"] = dataclasses.asdict(run.limits)
    run.report.facts("machine", machine.facts())
    counts = (f"{name} {part.multiply_adds:,}" for name, part in run.parts.items())
    run.report.facts(
        "bounds",
        {
            "preset": run.preset,
            "multiply-adds a pixel": ", ".join(counts),
            "peak": f"{run.limits.peak / 1e9:,.0f} GFLOP/s in fused multiply-adds",
            "cache": f"{run.limits.bandwidth / 1e9:,.0f} GB/s of a working set of "
            f"{megabytes(run.streamed)} MB, the weights of horizontal stack and head",
            "bound of an image": "vertical stack: FLOPs / peak; horizontal stack and head: the "
            "larger of FLOPs / peak and bytes / bandwidth / batch",
        },
    )


def check(run: Run) -> None:
    """Exit unless the engine draws what the training network decides, one by one and in bundles."""
    batches = 1, 6, BUNDLE * run.threads
    images = (run.subject.whole_call(batch)() for batch in batches)
    worst = max(run.subject.violation(hr) for hr in images)
    if not worst <= EPSILON:
        sys.exit(f"the engine is wrong: cdf_violation {worst:.1e} > {EPSILON:.0e}: no figures")
    run.report.facts("check", {"cdf_violation": f"{worst:.1e}, at most {EPSILON:.0e}"})


def measure(part: Callable[[Run], None], run: Run) -> None:
    """Let a part measure and print; tell how much other work has disturbed it."""
    other_work = machine.OtherWork()
    part(run)
    share = other_work.share()
    run.report.results["other_work"][part.__name__] = share
    if share > DISTURBED:
        warning = f"Meanwhile other work took {share:.0%} of the cores: this is slower for it."
        run.report.console.print(f"[red]{warning}[/red]")


def look_back(run: Run) -> None:
    """Whether the machine is still as fast as it was."""
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
        help="rounds in which all that is compared is timed in turn",
    )
    parser.add_argument("--quick", action="store_true", help="fewer sizes, one round, no compiler")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    options = parser.parse_args()
    report = Report()
    run = Run(options.preset, 1 if options.quick else options.runs, options.quick, report)
    describe(run)
    check(run)
    for part in (batches, split, sizes, widths, contention, memory):
        measure(part, run)
    look_back(run)
    if options.json:
        report.write(options.json)


if __name__ == "__main__":
    main()
