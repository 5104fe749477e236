"""The bundled models, whose hidden units are nearly all zero, against their bounds."""

from __future__ import annotations

from benchmarks.bounds import bounds, count_work
from benchmarks.report import Column, Record, milliseconds, ms, times
from benchmarks.run import Run
from benchmarks.subject import Subject
from prsr.engines.grouped_weights import pack_prior
from prsr.models.model_files import bundled_models


def trained(run: Run) -> None:
    """Print a table of the bundled models, with the inputs that are bundled with them."""
    names = ["portraits"] if run.quick else bundled_models()
    records = [record for name in names for record in measure(run, name)]
    run.report.table(
        "trained",
        "ms per image: bundled models",
        [
            Column("model", "model"),
            Column("batch", "batch"),
            Column("zero", "units zero", percent),
            Column("engine", "engine", milliseconds),
            Column("bound", "bound", ms),
            Column("ratio", "over bound", times),
            Column("needed", "without zeros", ms),
            Column("needed_ratio", "over it", times),
            Column("call", "whole call", milliseconds),
        ],
        records,
        "Units zero: hidden units that are zero in an image, and at batch 16 in all of 8 images.\n"
        "Both models have conditional gates, which the preset paper has not.",
    )


def measure(run: Run, name: str) -> list[Record]:
    """The rows of one model."""
    subject = Subject.bundled(name)
    packed = pack_prior(subject.model.prior)
    parts, needed = count_work(packed), count_work(packed, subject.nonzero())
    records = []
    for batch in (1, 16):
        works = {"engine": subject.engine_alone(batch), "call": subject.whole_call(batch)}
        timings = {key: timing.times(1 / batch) for key, timing in run.interleaved(works).items()}
        alone = timings["engine"].median
        bound, least = (
            sum(bounds(work, run.limits, subject.pixels, batch).values())
            for work in (parts, needed)
        )
        records.append(
            {
                "model": name,
                "batch": batch,
                "zero": 1 - subject.nonzero(1 if batch == 1 else 8),
                **timings,
                "bound": bound,
                "ratio": alone / bound,
                "needed": least,
                "needed_ratio": alone / least,
            }
        )
    return records


def percent(share: float) -> str:
    """A share in percent."""
    return f"{share:.1%}"
