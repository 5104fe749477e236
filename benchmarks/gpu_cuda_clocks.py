"""Where the time of the engine ``cuda`` goes: clocks by phase, and limits of the GPU.

Each value is printed beside the one that the design assumed for an H100 before any GPU had run it,
and the consequence of another value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from benchmarks.gpu_bench import Bench
from benchmarks.gpu_checks import Checks
from benchmarks.report import Column, Record
from prsr.engines import cuda
from prsr.engines.base import Job
from prsr.engines.cuda_formats import PRECISIONS
from prsr.engines.cuda_layout import CUDAWeights

SCRATCH = 32 * 2**20  # bytes that the microbenchmarks read


class Expected(NamedTuple):
    """The value that the design assumed, and the consequence of another one."""

    value: str
    otherwise: str


CLUSTERS = {
    16: Expected("8", "none: clusters of 8 at most"),
    8: Expected("16", "fewer: fewer images at a time"),
}
"""How many clusters of so many blocks run concurrently."""

LIMITS = {
    "hop to 1": Expected("230", "above 450: clusters of 8 at most"),
    "hop to 16": Expected("280", "above 450: clusters of 8 at most"),
    "cluster barrier": Expected("over 400", "it confirms that no loop has one"),
    "MAC a clock": Expected("1,270", "below 1,000: wgmma next"),
    "L2 bytes a clock, one": Expected("60", "below 40: sums take longer than the chain"),
    "L2 bytes a clock, all": Expected("28", "below 22: multicast of weights next"),
    "launch gap, us": Expected("1 to 3", "above 5% of an image: rows in one launch"),
}

PHASES = {
    "chain, a layer": Expected("131; fp32 290", "not below 180 and 400: look-ahead off"),
    "sums": Expected("0", "above 300: the other warps' sums take longer than the chain"),
    "head": Expected("600", "above 800: load hidden units' weights earlier"),
    "late": Expected("700", "above 1,000: later than the draw, by idle warps"),
    "logits": Expected("230", "above 450: clusters of 8 at most"),
    "draw": Expected("530", ""),
}
"""Clocks per sub-pixel of one image."""

IMAGES = (1, 16)
"""Batch sizes; with 16 the chain's warp computes the gates of both halves of its tile."""


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


def record(what: str, measured: float, expected: Expected) -> Record:
    """A row of the table."""
    return {"what": what, "measured": measured, **expected._asdict()}


def limits(bench: Bench) -> Iterator[Record]:
    """Clusters, and microbenchmarks of the operations that the kernels consist of."""
    for size, expected in CLUSTERS.items():
        count = cuda.active_clusters(bench.config, bench.device, "bf16", size)
        yield record(f"clusters of {size}", count, expected)
    for what, value in cuda.measure(bench.device, SCRATCH):
        yield record(what, value, LIMITS[what])


def phases(bench: Bench, precision: str, batch: int) -> Iterator[Record]:
    """Clocks per sub-pixel by phase."""
    weights = cuda.CUDAEngine().pack(bench.model.prior, precision)
    for name, total in clocks_by_phase(bench, weights, bench.job(batch)).items():
        what, count = name, sub_pixels(bench)
        if name == "chain":
            what, count = "chain, a layer", sub_pixels(bench) * bench.config.prior_layers
        expected = PHASES[what] if batch == 1 else Expected("", "")
        yield record(f"{precision}, batch {batch}: {what}", total / count, expected)


def measure_clocks(bench: Bench, checks: Checks) -> None:
    """Measure and print the table."""
    records: list[Record] = []
    with checks.attempt("limits"):
        records.extend(limits(bench))
    for precision in PRECISIONS:
        for batch in IMAGES:
            with checks.attempt(f"clocks, {precision}, batch {batch}"):
                records.extend(phases(bench, precision, batch))
    bench.report.table(
        "clocks",
        "Clocks per sub-pixel by phase" + bench.dry,
        [
            Column("what", ""),
            Column("measured", "measured", "{:,.0f}".format),
            Column("value", "assumed"),
            Column("otherwise", "if otherwise"),
        ],
        records,
    )
