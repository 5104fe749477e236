"""The bundled models, whose hidden units are nearly all zero, against their bounds."""

from __future__ import annotations

from benchmarks.report import Column, Record, milliseconds
from benchmarks.run import ENGINE_COLUMNS, Run
from benchmarks.subject import Subject
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
            *ENGINE_COLUMNS,
            Column("call", "whole call", milliseconds),
        ],
        records,
        "Units zero: hidden units that are zero in an image, and at batch 16 in all of 8 images.\n"
        "Both models have conditional gates, which the preset paper has not.",
    )


def measure(run: Run, name: str) -> list[Record]:
    """The rows of one model."""
    subject = Subject.bundled(name)
    records = []
    for batch in (1, 16):
        works = {"engine": subject.engine_alone(batch), "call": subject.whole_call(batch)}
        timings = {key: timing.times(1 / batch) for key, timing in run.interleaved(works).items()}
        records.append(
            {
                "model": name,
                "batch": batch,
                "zero": 1 - subject.nonzero(1 if batch == 1 else 8),
                **run.with_bounds(subject, batch, timings["engine"]),
                "call": timings["call"],
            }
        )
    return records


def percent(share: float) -> str:
    """A share in percent."""
    return f"{share:.1%}"
