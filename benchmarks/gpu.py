"""Check an engine on the GPU of this machine, and measure the speed of the engine ``triton``.

    python -m benchmarks.gpu [--preset paper] [--json gpu.json] [--quick]
    python -m benchmarks.gpu --only checks --engine torch

(``make gpu`` builds the modules, then runs checks and figures as stages.) All checks of
``benchmarks/gpu_checks.py`` are run, even if some fail, and with ``--only sanitizer`` those of
``compute-sanitizer`` instead. The exit code is 1 if a check
fails, and 77 if the engine does not support this machine. The figures are milliseconds, images per
second, the time of each kernel, the bound and, in the same run, comparators without prsr's kernels:
the naive sampler as CUDA graphs, and the engine ``torch``, eager, as CUDA graphs and compiled.

``TRITON_INTERPRET=1 python -m benchmarks.gpu --device cpu --preset tiny --quick`` runs everything
that does not need a GPU, as a test of this command.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
import triton

import prsr
from benchmarks.gpu_bench import Bench
from benchmarks.gpu_checks import (
    TRUTHS,
    Checks,
    check_correctness,
    check_odd_configurations,
    compute_sanitizer,
    run_compute_sanitizer,
)
from benchmarks.gpu_figures import measure_speed
from benchmarks.machine import commit
from benchmarks.report import Report
from benchmarks.stages import CANNOT_SERVE

PARTS = ("checks", "figures", "sanitizer")


def maximum_clock(clock: str) -> float | None:
    """The maximum clock in Hz from a query result such as "1980 MHz, 1980 MHz"."""
    found = re.search(r"(\d+) MHz$", clock)
    return 1e6 * float(found[1]) if found else None


def query_gpu(query: str) -> str:
    """A property of the first GPU from nvidia-smi, or "unknown" without that tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    command = [tool, "--id=0", f"--query-gpu={query}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def describe_gpu(device: torch.device) -> dict[str, str]:
    """GPU, versions and commit, by heading."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "card": card,
        "clock": query_gpu("clocks.sm,clocks.max.sm"),
        "driver": query_gpu("driver_version"),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "prsr": prsr.__version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def run_checks(bench: Bench, checks: Checks) -> None:
    """Run all checks of an engine but those of ``compute-sanitizer``."""
    batches = [1, 2, 3] if bench.dry_run else [1, 16, 257]
    if not bench.dry_run and not bench.quick:
        batches.append(2048)
    check_correctness(bench, checks, batches)
    check_odd_configurations(bench, checks)


def measure(bench: Bench, clock: str) -> None:
    """Measure the speed of the engine ``triton`` and its comparators."""
    everything = [1, 4, 16, 64, 256, 1024, 4096]
    if bench.dry_run:
        everything = [1, 3]
    elif bench.quick:
        everything = [1, 16, 256, 1024]
    measure_speed(bench, everything, maximum_clock(clock))


def main() -> None:
    """Run checks, then figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="paper", choices=list(prsr.PRESETS))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--engine", default="triton", choices=list(prsr.list_engines()))
    parser.add_argument("--precision", choices=list(TRUTHS), help="check only this one")
    parser.add_argument("--only", choices=PARTS, help="run only this part")
    parser.add_argument("--quick", action="store_true", help="fewer batches and rounds")
    parser.add_argument("--json", type=Path, help="also write the results here")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    config = prsr.PRSRConfig.preset(chosen.preset)
    if reasons := prsr.list_engines(config, device)[chosen.engine]:
        print(f"engine {chosen.engine} does not support this machine: {'; '.join(reasons)}")
        sys.exit(CANNOT_SERVE)
    tool = None if device.type == "cpu" else compute_sanitizer()
    if chosen.only == "sanitizer" and tool is None:
        print("compute-sanitizer is not installed, or this is a dry run")
        sys.exit(CANNOT_SERVE)
    bench = Bench(config, device, chosen.quick, Report(chosen.json))
    facts = describe_gpu(device)
    bench.report.print_facts("about", facts)
    checks = Checks(chosen.engine, chosen.precision)
    bench.report.results["checks"] = checks.outcomes
    try:
        if chosen.only in (None, "checks"):
            run_checks(bench, checks)
        if chosen.only == "sanitizer" and tool is not None:
            run_compute_sanitizer(tool, bench, checks)
        if chosen.only in (None, "figures"):
            measure(bench, facts["clock"])
    finally:
        bench.report.write()
    if chosen.only != "figures":
        print(f"engine {chosen.engine}: {checks.failures()} of {len(checks.outcomes)} checks fail")
    sys.exit(checks.failures() > 0)


if __name__ == "__main__":
    main()
