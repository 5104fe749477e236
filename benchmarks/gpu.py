"""Whether the engine ``triton`` is right on the GPU that is here, and then how fast it is.

    python -m benchmarks.gpu [--preset paper] [--json gpu.json] [--quick]

(``make gpu`` first builds what it needs.) First SPEC's test at batches from 1 to 2,048 in both
precisions, 20 runs alike, the same pictures in another batch and by the engine ``cpu``, odd
configurations, and ``compute-sanitizer`` where it is installed; a failure ends it there. Then
milliseconds and pictures a second, the split between the two kernels, the bound and, in the same
run, what a good user of PyTorch has without prsr: the naive sampler as CUDA graphs, and the engine
``torch``, eager, as CUDA graphs, and compiled as well.

``TRITON_INTERPRET=1 python -m benchmarks.gpu --device cpu --preset tiny --quick`` goes through all
of it without what only a GPU has: a test of this command, not of a GPU.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
import triton
from torch import Tensor

import prsr
from benchmarks.gpu_bench import Bench
from benchmarks.gpu_figures import figures
from benchmarks.machine import commit
from benchmarks.precision import with_rounded_operands
from benchmarks.report import Report
from benchmarks.subject import EPSILON
from prsr.testing import cdf_violation, parting_distance

BF16_EPSILON = 0.02
"""How far u may lie outside the CDF of the model whose products round as the engine's: a sum in
another order rounds now and then to the next bfloat16, and moves that CDF by a little."""

PARTED = 0.03
"""Of the pictures of two engines, fewer than these may differ: SPEC, section 2."""

CHECKED = 128  # pictures whose logits fit in memory at a time

ODD = (
    prsr.PRSRConfig(
        levels=7, scale=2, low_height=3, low_width=4, conditioning_channels=5,
        conditioning_blocks=1, prior_channels=10, prior_layers=2, prior_kernel=3, first_kernel=5,
        head_channels=70, conditional_gates=True,
    ),
    prsr.PRSRConfig(
        channels=1, levels=2, scale=2, low_height=3, low_width=3, conditioning_blocks=1,
        prior_channels=100, prior_layers=3, prior_kernel=1, first_kernel=3, head_channels=33,
    ),
    prsr.PRSRConfig(
        scale=2, low_height=4, low_width=4, conditioning_blocks=1, prior_layers=3,
        head_channels=96, conditional_gates=True,
    ),
)  # fmt: skip
"""Two configurations that fit no tile, the first with conditional gates; registers do not hold the
features of the second. The third has the tiles and conditional gates of ``paper-conditional``."""


def require(passed: bool, what: str) -> None:
    """Say that it holds, or end the run."""
    print(f"{'holds' if passed else 'FAILS'}: {what}", flush=True)
    if not passed:
        sys.exit(1)


def violation(model: prsr.PRSR, call: dict[str, Tensor], picture: Tensor) -> float:
    """The worst of SPEC's test, in slices; ``call`` has lr, noise, temperature and a mask."""
    parts = (tensor.split(CHECKED) for tensor in (call["lr"], picture, *list(call.values())[1:]))
    worst = torch.cat([cdf_violation(model, *part) for part in zip(*parts, strict=True)])
    return float(worst.max())  # NaN if one is, which Python's max would lose


def correct(bench: Bench, batches: list[int]) -> None:
    """SPEC's test and equality; ends the run at the first that fails."""
    few, more = batches[1:3]
    lr = bench.pictures(few)
    for precision, limit in (("fp32", EPSILON), ("bf16", BF16_EPSILON)):
        truth = bench.model if precision == "fp32" else with_rounded_operands(bench.model)
        sampler = prsr.Sampler(bench.model, engine="triton", precision=precision)
        for batch in batches:
            picture = sampler.sample(bench.pictures(batch), seed=0)
            worst = violation(truth, plain(bench, batch), picture)
            require(worst <= limit, f"{precision}, batch {batch}: CDF violation {worst:.2g}")
        first = sampler.sample(lr, seed=0)
        runs = 2 if bench.quick else 20
        same = all(torch.equal(sampler.sample(lr, seed=0), first) for _ in range(runs))
        require(same, f"{precision}: {runs} more runs draw the same {few} pictures")
    ours = prsr.sample(bench.pictures(more), model=bench.model, seed=0, engine="triton")
    in_few = prsr.sample(lr, model=bench.model, seed=0, engine="triton")
    on_cpu = copy.deepcopy(bench.model).cpu()
    theirs = prsr.sample(bench.pictures(more).cpu(), model=on_cpu, seed=0, engine="cpu")
    for other, whose in ((in_few, f"those in a batch of {few}"), (theirs, "the engine cpu's")):
        apart, equal = agreement(bench, ours[: len(other)], other.to(bench.device))
        told = f"{equal:.1%} of {len(other)} pictures equal {whose}, u within {apart:.2g} of others"
        require(apart <= EPSILON and equal > 1 - PARTED, told)


def agreement(bench: Bench, one: Tensor, other: Tensor) -> tuple[float, float]:
    """How far u was from an edge where pictures part, at the worst, and how many are equal."""
    lr, noise = bench.pictures(len(one)), bench.noise(len(one))
    parts = zip(*(tensor.split(CHECKED) for tensor in (lr, one, other, noise)), strict=True)
    apart = torch.cat([parting_distance(bench.model, *part) for part in parts])
    return float(apart.max()), float((one == other).flatten(1).all(1).float().mean())


def plain(bench: Bench, batch: int) -> dict[str, Tensor]:
    """What :func:`violation` asks of the usual pictures."""
    shape = (batch, bench.config.channels, *bench.size)
    return {
        "lr": bench.pictures(batch),
        "noise": bench.noise(batch),
        "temperature": torch.ones(batch, device=bench.device),
        "mask": torch.zeros(shape, dtype=torch.bool, device=bench.device),
    }


def odd_ones(bench: Bench) -> None:
    """SPEC's test on other configurations: with known sub-pixels and temperatures, and in bf16."""
    for config in ODD[:1] if bench.rehearsal else ODD:
        odd = Bench(config, bench.device, bench.quick, bench.report)
        for batch in (3,) if bench.rehearsal else (3, 257):
            call = plain(odd, batch)
            call["temperature"] = torch.linspace(0, 1.5, batch, device=odd.device)
            known = torch.randint_like(call["mask"], config.levels, dtype=torch.uint8)
            call["mask"] = torch.rand(known.shape, device=odd.device) < 0.3
            picture = prsr.sample(
                call["lr"],
                call["temperature"],
                model=odd.model,
                seed=0,
                engine="triton",
                known=known,
                mask=call["mask"],
            )
            worst = violation(odd.model, call, picture)
            what = f"D={config.channels}, K={config.levels}, C={config.prior_channels}"
            require(worst <= EPSILON, f"{what}, batch {batch}: CDF violation {worst:.2g}")
            kept = torch.equal(picture[call["mask"]], known[call["mask"]])
            require(kept, f"{what}, batch {batch}: known sub-pixels stay")
            # At temperature 1: near 0 the rounding of a sum decides which level is drawn.
            call = plain(odd, batch)
            picture = prsr.sample(
                call["lr"], model=odd.model, seed=0, engine="triton", precision="bf16"
            )
            worst = violation(with_rounded_operands(odd.model), call, picture)
            holds = worst <= BF16_EPSILON
            require(holds, f"{what}, batch {batch}, bf16: CDF violation {worst:.2g}")


def sanitized(bench: Bench) -> None:
    """``compute-sanitizer`` on a tiny model, where it is installed."""
    tool = shutil.which("compute-sanitizer") or shutil.which(
        "/usr/local/cuda/bin/compute-sanitizer"
    )
    if tool is None:
        print("not here: compute-sanitizer")
        return
    code = (
        "import torch, prsr; m = prsr.PRSR(prsr.PRSRConfig.preset('tiny')).cuda();"
        "lr = torch.zeros(3, 3, 2, 2, dtype=torch.uint8, device='cuda');"
        "prsr.sample(lr, model=m, seed=0, engine='triton')"
    )
    # A block of memory for each tensor: a read beyond one would else end in torch's own pool.
    alone = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    # torch asks the driver for functions that it may not have: such answers are no errors here.
    for check, more in (("memcheck", ["--report-api-errors", "no"]), ("racecheck", [])):
        command = [tool, "--tool", check, *more, "--error-exitcode", "9"]
        try:
            run = subprocess.run(
                [*command, sys.executable, "-c", code],
                capture_output=True,
                text=True,
                check=False,
                timeout=90,
                env=alone,
            )
        except subprocess.TimeoutExpired:
            print(f"not known: compute-sanitizer, {check}, did not end in 90 s", flush=True)
            continue
        require(run.returncode == 0, f"compute-sanitizer, {check}: {run.stdout[-200:].strip()!r}")


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


def main() -> None:
    """Everything, in order."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="paper", choices=list(prsr.PRESETS))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="fewer batches and rounds")
    parser.add_argument("--json", type=Path, help="write everything here as well")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    config = prsr.PRSRConfig.preset(chosen.preset)
    needed = prsr.engines(config, device)["triton"], prsr.engines(config)["cpu"]
    for engine, reasons in zip(("triton", "cpu"), needed, strict=True):
        if reasons:
            sys.exit(f"benchmarks.gpu: engine {engine}: {'; '.join(reasons)}")
    bench = Bench(config, device, chosen.quick, Report())
    facts = about(device)
    bench.report.facts("about", facts)
    if bench.rehearsal:
        correct(bench, [1, 2, 3])
        odd_ones(bench)
        figures(bench, [1, 3], None)
    else:
        correct(bench, [1, 16, 257] if chosen.quick else [1, 16, 257, 2048])
        odd_ones(bench)
        sanitized(bench)
        everything = [1, 4, 16, 64, 256, 1024, 4096]
        batches = [1, 16, 256, 1024] if chosen.quick else everything
        figures(bench, batches, highest(facts["clock"]))
    if chosen.json:
        bench.report.write(chosen.json)


if __name__ == "__main__":
    main()
