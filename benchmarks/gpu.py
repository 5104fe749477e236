"""Whether the engine ``triton`` is right on the GPU that is here, and then how fast it is.

    python -m benchmarks.gpu [--preset paper] [--json gpu.json] [--quick]

First SPEC's test at batches from 1 to 2,048 in both precisions, the same picture in any batch,
equality with the engine ``cpu``, 20 runs alike, and ``compute-sanitizer`` where it is installed; a
failure ends it there. Then milliseconds and pictures a second, the split between the two kernels,
the bound (arithmetic over the peak of torch's matrix products, measured here) and, in the same run,
what a good user of PyTorch has without prsr: the naive sampler and the engine ``torch``, eager and
as CUDA graphs, timed on a few steps and multiplied.

``--device cpu`` goes through the first half in Triton's interpreter, with a tiny preset: a test of
this file, not of a GPU.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import triton
from torch import Tensor

import prsr
from benchmarks.bounds import PARTS, needed
from benchmarks.report import Column, Record, Report, ms, times
from benchmarks.subject import EPSILON
from benchmarks.timing import Timing
from prsr.engines import Job
from prsr.engines.base import Engine
from prsr.engines.cached import TorchEngine, horizontal_pixel, vertical_row
from prsr.engines.packing import pack_prior
from prsr.engines.triton import TritonEngine, launches
from prsr.exact import exact_fp32
from prsr.testing import cdf_violation, parting_distance

BF16_EPSILON = 0.1
"""What bf16 may move a CDF by at the worst of millions of draws: an error, not its rounding."""

CHECKED = 128  # pictures whose logits fit in memory at a time


@dataclass
class Bench:
    """What the parts of a run share."""

    config: prsr.PRSRConfig
    device: torch.device
    quick: bool
    report: Report

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = prsr.PRSR(self.config).eval().to(self.device)
        scale = self.config.scale
        # The interpreter takes a second for a pixel.
        on_gpu = self.device.type == "cuda"
        self.low = (self.config.low_height, self.config.low_width) if on_gpu else (1, 1)
        self.size = scale * self.low[0], scale * self.low[1]

    def pictures(self, batch: int) -> Tensor:
        """Random ones, the first of them always the same, ``uint8 [batch, D, h, w]``."""
        shape = (batch, self.config.channels, *self.low)
        random = torch.Generator().manual_seed(0)
        lr = torch.randint(self.config.levels, shape, dtype=torch.uint8, generator=random)
        return lr.to(self.device)

    def draw(self, batch: int, precision: str = "fp32", engine: str = "triton") -> Tensor:
        """The whole call, with seed 0."""
        sampler = prsr.Sampler(self.model, engine=engine, precision=precision)
        return sampler.sample(self.pictures(batch), seed=0)

    def job(self, batch: int) -> Job:
        """What an engine is given."""
        channels = self.config.channels
        with torch.no_grad():
            logits = self.model.conditioning(self.pictures(batch))
        return Job(
            conditioning=logits,
            noise=prsr.noise(0, batch, *self.size, channels).to(self.device),
            temperature=torch.ones(batch, device=self.device),
            mask=None,
            picture=torch.zeros(
                (batch, channels, *self.size), dtype=torch.uint8, device=self.device
            ),
        )


def require(passed: bool, what: str) -> None:
    """Say that it holds, or end the run."""
    print(f"{'holds' if passed else 'FAILS'}: {what}", flush=True)
    if not passed:
        sys.exit(1)


def violation(bench: Bench, picture: Tensor) -> float:
    """The worst of SPEC's test, in slices."""
    noise = prsr.noise(0, len(picture), *bench.size, bench.config.channels).to(bench.device)
    lr = bench.pictures(len(picture))
    return max(
        float(cdf_violation(bench.model, a, b, u, 1.0).max())
        for a, b, u in zip(*(t.split(CHECKED) for t in (lr, picture, noise)), strict=True)
    )


def correct(bench: Bench, batches: list[int]) -> None:
    """SPEC's test and equality; ends the run at the first that fails."""
    few = batches[1]
    for precision, limit in (("fp32", EPSILON), ("bf16", BF16_EPSILON)):
        for batch in batches:
            worst = violation(bench, bench.draw(batch, precision))
            require(worst <= limit, f"{precision}, batch {batch}: CDF violation {worst:.2g}")
        first = bench.draw(few, precision)
        runs = 2 if bench.quick else 20
        same = all(torch.equal(bench.draw(few, precision), first) for _ in range(runs))
        require(same, f"{precision}: {runs} more runs draw the same {few} pictures")
    together = bench.draw(batches[2])[:few]
    require(torch.equal(together, bench.draw(few)), "fp32: a picture is the same in any batch")
    on_cpu = prsr.PRSR(bench.config).eval()
    on_cpu.load_state_dict(bench.model.state_dict())
    ours, lr = bench.draw(few).cpu(), bench.pictures(few).cpu()
    theirs = prsr.sample(lr, model=on_cpu, seed=0, engine="cpu")
    noise = prsr.noise(0, few, *bench.size, bench.config.channels)
    apart = float(parting_distance(on_cpu, lr, ours, theirs, noise).max())
    equal = float((ours == theirs).flatten(1).all(1).float().mean())
    require(
        apart <= EPSILON, f"{equal:.0%} of pictures equal cpu's, u within {apart:.2g} of others"
    )


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
    for check in ("memcheck", "racecheck"):
        command = [tool, "--tool", check, "--error-exitcode", "9", sys.executable, "-c", code]
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
        except subprocess.TimeoutExpired:
            print(f"not known: compute-sanitizer, {check}, did not end in 90 s", flush=True)
            continue
        require(run.returncode == 0, f"compute-sanitizer, {check}: {run.stdout[-200:].strip()!r}")


def seconds(work: Callable[[], object], rounds: int, warm: int = 1) -> Timing:
    """The GPU's time, from one event to another."""
    taken = []
    for turn in range(warm + rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        if turn >= warm:
            taken.append(1e-3 * start.elapsed_time(end))
    return Timing(tuple(taken))


def rows_of(engine: Engine, bench: Bench, batch: int, precision: str) -> Callable[[], None]:
    """All rows of an engine on packed weights and conditioning logits."""
    packed, job = engine.pack(bench.model.prior, precision), bench.job(batch)

    def work() -> None:
        with exact_fp32(bench.device):
            state = engine.start(packed, job)
            for y in range(bench.size[0]):
                engine.row(state, y)

    return work


def replayed(work: Callable[[], object]) -> Callable[[], None]:
    """The work as a CUDA graph."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def comparators(bench: Bench, batch: int) -> Record:
    """Seconds a batch for PyTorch without prsr: steps timed, and multiplied."""
    height, width = bench.size
    channels = bench.config.channels
    engine, job = TorchEngine(), bench.job(batch)
    with exact_fp32(bench.device):
        state = engine.start(engine.pack(bench.model.prior, "fp32"), job)
        logits = job.conditioning[:, :, :, 0].permute(3, 2, 0, 1).contiguous()

        def pixel() -> None:
            horizontal_pixel(state, 0, 0, logits[0])

        def row() -> None:
            vertical_row(state, 0)

        def forward() -> Tensor:
            return bench.model.prior(job.picture)

        eager = seconds(pixel, 5).times(height * width).median
        eager += seconds(row, 5).times(height).median
        graphs = seconds(replayed(pixel), 20).times(height * width).median
        graphs += seconds(replayed(row), 20).times(height).median
        naive = seconds(replayed(forward), 3).times(height * width * channels).median
    return {"eager": eager, "graphs": graphs, "naive": naive}


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of torch's products of large matrices."""
    side = 8192
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    with exact_fp32(device):
        return 2 * side**3 / seconds(lambda: a @ b, 10, warm=3).median


def figures(bench: Bench, batches: list[int]) -> None:
    """The table."""
    parts = needed(pack_prior(bench.model.prior))
    work = sum(parts[name].multiply_adds for name in PARTS) * bench.size[0] * bench.size[1]
    records = []
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        best = peak(bench.device, dtype)
        for batch in batches:
            engine = TritonEngine()
            whole = seconds(rows_of(engine, bench, batch, precision), 3 if bench.quick else 9)
            state = engine.start(engine.pack(bench.model.prior, precision), bench.job(batch))
            engine.row(state, 0)
            vertical, horizontal = (
                seconds(partial(launch.kernel[(launch.programs,)], **launch.arguments), 9)
                for launch in launches(state, 1)
            )
            record: Record = {
                "precision": precision,
                "batch": batch,
                "seconds": whole.median,
                "rate": batch / whole.median,
                "vertical": bench.size[0] * vertical.median,
                "horizontal": bench.size[0] * horizontal.median,
                "bound": 2 * work * batch / best,
            }
            if precision == "fp32" and batch <= 256:
                record |= comparators(bench, batch)
                record["faster"] = record["graphs"] / whole.median
            records.append(record)
            del state
            torch.cuda.empty_cache()
    bench.report.table(
        "figures",
        "Milliseconds a batch",
        [
            Column("precision", ""),
            Column("batch", "batch"),
            Column("seconds", "triton", ms),
            Column("rate", "pictures/s", lambda rate: f"{rate:,.0f}"),
            Column("vertical", "vertical", ms),
            Column("horizontal", "horizontal", ms),
            Column("bound", "bound", ms),
            Column("eager", "torch", ms),
            Column("graphs", "its CUDA graphs", ms),
            Column("naive", "naive, CUDA graphs", ms),
            Column("faster", "triton against torch's graphs", times),
        ],
        records,
    )
    if bench.config == prsr.PRESETS["paper"]:
        alone = records[0]["seconds"]
        rate = max(r["rate"] for r in records if r["precision"] == "bf16")
        least = min(r["faster"] for r in records if "faster" in r)
        bench.report.bar("one picture, ms", alone, most=0.1, show=ms)
        bench.report.bar("pictures a second in bf16", rate, least=5000, show="{:,.0f}".format)
        bench.report.bar("against torch under CUDA graphs", least, least=10)


def clocks() -> str:
    """Of the multiprocessors, now and at most, where NVIDIA's tool is there to ask."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown"
    command = [tool, "--query-gpu=clocks.sm,clocks.max.sm", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def about(device: torch.device) -> dict[str, str]:
    """Card, versions and commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "card": card,
        "clock": clocks(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": commit or "unknown",
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
    reasons = prsr.engines(config, device)["triton"]
    if reasons:
        sys.exit(f"benchmarks.gpu: engine triton: {'; '.join(reasons)}")
    bench = Bench(config, device, chosen.quick, Report())
    bench.report.facts("about", about(device))
    if device.type == "cpu":
        correct(bench, [1, 2, 3])
        return
    correct(bench, [1, 16, 257] if chosen.quick else [1, 16, 257, 2048])
    sanitized(bench)
    everything = [1, 4, 16, 64, 256, 1024, 4096]
    figures(bench, [1, 16, 256, 1024] if chosen.quick else everything)
    if chosen.json:
        bench.report.write(chosen.json)


if __name__ == "__main__":
    main()
