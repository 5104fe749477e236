"""A comparison as files: JSON and CSV for programs, Markdown for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from prsr.evaluation.compare import Comparison, Row
from prsr.evaluation.metrics import Interval
from prsr.utils.files import replacing

DECIMALS = {"pSNR": 2, "consistency": 5, "mean squared error": 5}
OTHER_DECIMALS = 3
TABLES = ("table.json", "table.csv", "table.md")
UNITS = {"pSNR": "dB"}


def write_tables(comparison: Comparison, about: Mapping[str, str], folder: Path) -> list[Path]:
    """Write ``table.json``, ``table.csv`` and ``table.md``, each in one step.

    Args:
        comparison: what was measured.
        about: what it was measured on, and how: by heading.
        folder: it must be there.

    Raises:
        OSError: it cannot be written.
    """
    texts = as_json(comparison, about), as_csv(comparison), as_markdown(comparison, about)
    for name, text in zip(TABLES, texts, strict=True):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in TABLES]


def check_tables(folder: Path, overwrite: bool) -> None:
    """In a folder there are no tables, or those of an earlier :func:`write_tables`.

    Raises:
        FileExistsError: there are others, and they are not to be replaced.
    """
    try:
        content = json.loads((folder / "table.json").read_text(encoding="utf-8"))
        ours = isinstance(content, dict) and {"about", "likelihood", "images"} <= content.keys()
    except (OSError, ValueError, RecursionError):
        ours = False
    there = [folder / name for name in TABLES if (folder / name).exists()]
    if there and not ours and not overwrite:
        raise FileExistsError(
            f"{there[0]} is there already, and nothing says that prsr wrote it: --overwrite "
            "replaces it, or choose another out"
        )


def as_json(comparison: Comparison, about: Mapping[str, str]) -> str:
    """Everything, with the τ of each row."""
    content = {
        "about": dict(about),
        "parameters": comparison.parameters,
        "likelihood": [{**asdict(row), "tau": row.tau} for row in comparison.likelihood],
        "images": [{**asdict(row), "tau": row.tau} for row in comparison.images],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def as_csv(comparison: Comparison) -> str:
    """A line for each figure: method, temperature, tau, measure, mean, low, high."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "temperature", "tau", "measure", "mean", "low", "high"])
    for row in [*comparison.images, *comparison.likelihood]:
        for name, value in row.values.items():
            where = [row.method, row.temperature, row.tau, name]
            writer.writerow([*where, value.mean, value.low, value.high])
    return text.getvalue()


def as_markdown(comparison: Comparison, about: Mapping[str, str]) -> str:
    """A line on each fact, then both tables."""
    facts = "".join(f"- {heading}: {fact}\n" for heading, fact in about.items())
    lines = [cells(row) for row in comparison.images]
    text = f"{facts}\n{markdown_table(lines)}"
    if comparison.likelihood:
        found = [
            {"method": row.method, "parameters": f"{comparison.parameters[row.method]:,}"}
            | shown(row)
            for row in comparison.likelihood
        ]
        text += f"\n{markdown_table(found)}"
    return text


def cells(row: Row) -> dict[str, str]:
    """A row of images as text by column."""
    temperature = "–" if row.temperature is None else f"{row.temperature:g}"
    tau = "∞" if row.temperature == 0 else "–" if row.tau is None else f"{row.tau:.3g}"
    return {"method": row.method, "temperature": temperature, "τ": tau} | shown(row)


def shown(row: Row) -> dict[str, str]:
    """The figures of a row as text, each under its name and unit."""
    return {
        f"{name} ({UNITS[name]})" if name in UNITS else name: interval_text(name, value)
        for name, value in row.values.items()
    }


def interval_text(name: str, value: Interval) -> str:
    """A mean and its interval, such as ``21.34 [21.20, 21.49]``."""
    digits = DECIMALS.get(name, OTHER_DECIMALS)
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows under the columns that any of them has, in order of appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[row.get(column, "") for column in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
