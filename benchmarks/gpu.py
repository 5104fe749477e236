"""Whether an engine is right on the GPU that is here, and how fast the engine ``triton`` is.

    python -m benchmarks.gpu [--preset paper] [--json gpu.json] [--quick]
    python -m benchmarks.gpu --only checks --engine torch

(``make gpu`` first builds what it needs; ``make gpu-all`` runs checks and figures as stages.) All
checks of ``benchmarks/gpu_checks.py`` are tried, whatever fails; the exit code is 1 at the end if
one does not hold, and 77 if the engine cannot serve here. Then milliseconds and images
a second, the split between the two kernels, the bound and, in the same run, what a good user of
PyTorch has without prsr: the naive sampler as CUDA graphs, and the engine ``torch``, eager, as CUDA
graphs, and compiled as well.

``TRITON_INTERPRET=1 python -m benchmarks.gpu --device cpu --preset tiny --quick`` goes through all
of it without what only a GPU has: a test of this command, not of a GPU.
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
from benchmarks.gpu_checks import Checks, correct, odd_ones, sanitized
from benchmarks.gpu_figures import figures
from benchmarks.machine import commit
from benchmarks.report import Report
from benchmarks.stages import CANNOT_SERVE


def highest(clock: str) -> float | None:
    """The highest clock in Hz, where the tool has told "now MHz, at most MHz"."""
    found = re.search(r"(\d+) MHz$", clock)
    return 1e6 * float(found[1]) if found else None


def asked(query: str) -> str:
    """What NVIDIA's tool says of the first GPU, where the tool is there to ask."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    command = [tool, "--id=0", f"--query-gpu={query}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def about(device: torch.device) -> dict[str, str]:
    """Card, versions and commit."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "card": card,
        "clock": asked("clocks.sm,clocks.max.sm"),
        "driver": asked("driver_version"),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "prsr": prsr.__version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def checked(bench: Bench, engine: str) -> int:
    """Try all checks of an engine; returns how many fail."""
    checks = Checks(engine)
    batches = [1, 2, 3] if bench.rehearsal else [1, 16, 257]
    if not bench.rehearsal and not bench.quick:
        batches.append(2048)
    correct(bench, checks, batches)
    odd_ones(bench, checks)
    if not bench.rehearsal and engine != "torch":  # which launches no kernel of ours
        sanitized(checks)
    bench.report.results["checks"] = checks.outcomes
    return checks.failures()


def measured(bench: Bench, clock: str) -> None:
    """The figures."""
    everything = [1, 4, 16, 64, 256, 1024, 4096]
    if bench.rehearsal:
        everything = [1, 3]
    elif bench.quick:
        everything = [1, 16, 256, 1024]
    figures(bench, everything, highest(clock))


def main() -> None:
    """Checks and figures, in this order."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="paper", choices=list(prsr.PRESETS))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--engine", default="triton", choices=list(prsr.list_engines()))
    parser.add_argument("--only", choices=["checks", "figures"], help="leave the other out")
    parser.add_argument("--quick", action="store_true", help="fewer batches and rounds")
    parser.add_argument("--json", type=Path, help="write everything here as well")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    config = prsr.PRSRConfig.preset(chosen.preset)
    if reasons := prsr.list_engines(config, device)[chosen.engine]:
        print(f"engine {chosen.engine} cannot serve here: {'; '.join(reasons)}")
        sys.exit(CANNOT_SERVE)
    bench = Bench(config, device, chosen.quick, Report())
    facts = about(device)
    bench.report.facts("about", facts)
    failures = 0
    try:
        if chosen.only != "figures":
            failures = checked(bench, chosen.engine)
        if chosen.only != "checks":
            measured(bench, facts["clock"])
    finally:
        if chosen.json:
            bench.report.write(chosen.json)
    if chosen.only != "figures":
        tried = len(bench.report.results["checks"])
        print(f"engine {chosen.engine}: {failures} of {tried} checks fail")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
