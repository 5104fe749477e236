"""Growth of sampling time with the image size, which should be linear, and with the features."""

from __future__ import annotations

import dataclasses

from benchmarks.report import Column, Record, milliseconds, times
from benchmarks.run import Run
from benchmarks.subject import Subject


def sizes(run: Run) -> None:
    """Measure images that are twice and four times as high and wide."""
    enlarged = {n: Subject(run.subject.config, n) for n in run.choose((1, 2, 4), (1, 2))}
    timings = run.interleaved({n: each.engine_alone(1) for n, each in enlarged.items()})
    records: list[Record] = [
        {
            "size": "{}×{}".format(*enlarged[n].size),
            "engine": timing,
            "pixel": timing.median / enlarged[n].pixels,
            "growth": timing.median / n**2 / timings[1].median,
        }
        for n, timing in timings.items()
    ]
    run.report.table(
        "sizes",
        "Growth with size: the engine alone, batch 1",
        [
            Column("size", "size"),
            Column("engine", "ms per image", milliseconds),
            Column("pixel", "µs per pixel", lambda seconds: f"{1e6 * seconds:.1f}"),
            Column("growth", "over linear", times),
        ],
        records,
    )
    for record in records[1:]:
        name = f"{record['size']}: a pixel over one of the smallest"
        run.target(name, record["growth"], most=1.1)


def widths(run: Run) -> None:
    """Measure numbers of features that do not fill vectors; the useful rate should not drop."""
    subjects = {
        features: Subject(dataclasses.replace(run.subject.config, prior_channels=features))
        for features in run.choose((32, 30, 33, 48, 64, 100, 128), (32, 33, 100))
    }
    flops = {}
    for features, subject in subjects.items():
        multiply_adds = sum(part.multiply_adds for part in subject.needed.values())
        flops[features] = 2 * subject.pixels * multiply_adds
    records: dict[int, Record] = {features: {"features": features} for features in subjects}
    for batch in (1, 16):
        works = {features: each.engine_alone(batch) for features, each in subjects.items()}
        for features, timing in run.interleaved(works).items():
            rate = flops[features] * batch / timing.median
            record = records[features]
            record[f"rate_{batch}"] = rate
            record[f"loss_{batch}"] = records[32][f"rate_{batch}"] / rate
    run.report.table(
        "widths",
        "Useful GFLOP/s by features C: the engine alone",
        [
            Column("features", "C"),
            Column("rate_1", "batch 1", gigaflops),
            Column("loss_1", "loss against C=32", times),
            Column("rate_16", "batch 16", gigaflops),
            Column("loss_16", "loss against C=32", times),
        ],
        list(records.values()),
    )
    for features, record in records.items():
        for batch in (1, 16):
            name = f"C={features}, batch {batch}: C=32's rate over its own"
            if features != 32:
                run.target(name, record[f"loss_{batch}"], most=1.3)


def gigaflops(rate: float) -> str:
    """Operations per second in GFLOP/s."""
    return f"{rate / 1e9:,.0f}"
