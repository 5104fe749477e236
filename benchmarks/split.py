"""The time of an image by part of the engine, each with its bound."""

from __future__ import annotations

import torch

from benchmarks import machine
from benchmarks.bounds import bounds, draw_bound
from benchmarks.report import Column, Record, ms, times
from benchmarks.run import Run
from benchmarks.subject import ENGINE
from prsr.engines.cpu import PARTS


def split(run: Run) -> None:
    """Print a table, measured on one thread, because the parts overlap with several."""
    torch.set_num_threads(1)
    limits = machine.limits(run.streamed, 1)
    records: list[Record] = []
    for batch in (1, 16):
        spent = seconds(run, batch)
        bound = bounds(run.subject.needed, limits, run.subject.pixels, batch)
        bound["draw"] = draw_bound(run.subject.config, limits, run.subject.pixels)
        records += [
            {
                "batch": batch,
                "part": name,
                "seconds": spent[name],
                "bound": bound[name],
                "ratio": spent[name] / bound[name],
            }
            for name in PARTS
        ]
    torch.set_num_threads(run.threads)
    run.report.table(
        "split",
        "ms per image by part: the engine alone, on one thread",
        [
            Column("batch", "batch"),
            Column("part", "part"),
            Column("seconds", "measured", ms),
            Column("bound", "bound", ms),
            Column("ratio", "over bound", times),
        ],
        records,
        f"One thread: {limits.peak / 1e9:,.0f} GFLOP/s, {limits.bandwidth / 1e9:,.0f} GB/s. "
        "The bounds are those without zeros; that of draw includes only its exponentials.",
    )


@torch.no_grad()
def seconds(run: Run, batch: int) -> dict[str, float]:
    """Seconds per image of each of ``PARTS``, the median of several runs."""
    subject = run.subject
    packed, job = ENGINE.pack(subject.model.prior, "fp32"), subject.job(batch)
    runs = []
    for _ in range(1 + 2 * run.rounds):
        state = ENGINE.start(packed, job)
        state.seconds = torch.zeros(len(PARTS), dtype=torch.float64)
        ENGINE.rows(state, 0, subject.size[0])
        runs.append(state.seconds / batch)
    medians = torch.stack(runs[1:]).median(dim=0).values  # the first run is a warm-up
    return dict(zip(PARTS, medians.tolist(), strict=True))
