"""A comparison table as files: JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from prsr.evaluation.compare import ComparisonRow, ComparisonTable
from prsr.evaluation.metrics import Interval
from prsr.utils.files import replacing

DECIMALS = {"pSNR": 2, "consistency": 5, "mean squared error": 5}
OTHER_DECIMALS = 3
FILE_NAMES = ("table.json", "table.csv", "table.md")
UNITS = {"pSNR": "dB"}


def write_tables(table: ComparisonTable, notes: Mapping[str, str], folder: Path) -> list[Path]:
    """Write ``table.json``, ``table.csv`` and ``table.md``; each file is replaced atomically.

    Args:
        table: the metrics.
        notes: the data, the models and how the metrics are computed, by heading.
        folder: an existing folder.

    Returns:
        The paths of the files.

    Raises:
        OSError: a file cannot be written.
    """
    texts = as_json(table, notes), as_csv(table), as_markdown(table, notes)
    for name, text in zip(FILE_NAMES, texts, strict=True):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in FILE_NAMES]


def check_tables(folder: Path, overwrite: bool) -> None:
    """Check that :func:`write_tables` would not replace files that it did not write.

    Args:
        folder: may be missing.
        overwrite: whether any file may be replaced.

    Raises:
        FileExistsError: a table by another program exists, and ``overwrite`` is false.
    """
    check_results(folder, FILE_NAMES, {"about", "likelihood", "images"}, overwrite)


def check_results(folder: Path, names: Sequence[str], keys: set[str], overwrite: bool) -> None:
    """Check that the results of a command would not replace files that it did not write.

    Args:
        folder: may be missing.
        names: the files of the results, the first a JSON file.
        keys: of that file, if the command wrote it.
        overwrite: whether any file may be replaced.

    Raises:
        FileExistsError: one of the files exists, the JSON file does not have the keys, and
            ``overwrite`` is false.
    """
    try:
        content = json.loads((folder / names[0]).read_text(encoding="utf-8"))
        ours = isinstance(content, dict) and keys <= content.keys()
    except (OSError, ValueError, RecursionError):
        ours = False
    existing = [folder / name for name in names if (folder / name).exists()]
    if existing and not ours and not overwrite:
        raise FileExistsError(
            f"{existing[0]} already exists and was not written by prsr: choose another out, or "
            "--overwrite to replace it"
        )


def as_json(table: ComparisonTable, notes: Mapping[str, str]) -> str:
    """The table and the notes as JSON; each row also has its τ."""
    content = {
        "about": dict(notes),
        "parameters": table.parameters,
        "likelihood": [{**asdict(row), "tau": row.tau} for row in table.likelihood],
        "images": [{**asdict(row), "tau": row.tau} for row in table.images],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def as_csv(table: ComparisonTable) -> str:
    """A line per value, with columns method, temperature, tau, metric, mean, low and high."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "temperature", "tau", "metric", "mean", "low", "high"])
    for row in [*table.images, *table.likelihood]:
        for metric, value in row.values.items():
            key = [row.method, row.temperature, row.tau, metric]
            writer.writerow([*key, value.mean, value.low, value.high])
    return text.getvalue()


def as_markdown(table: ComparisonTable, notes: Mapping[str, str]) -> str:
    """The notes as a list, the table of image metrics, and the table of likelihoods if any."""
    listed = "".join(f"- {heading}: {note}\n" for heading, note in notes.items())
    text = f"{listed}\n{markdown_table([image_cells(row) for row in table.images])}"
    if table.likelihood:
        rows = [
            {"method": row.method, "parameters": f"{table.parameters[row.method]:,}"}
            | metric_cells(row)
            for row in table.likelihood
        ]
        text += f"\n{markdown_table(rows)}"
    return text


def image_cells(row: ComparisonRow) -> dict[str, str]:
    """The cells of a row of image metrics, by column."""
    temperature = "–" if row.temperature is None else f"{row.temperature:g}"
    tau = "∞" if row.temperature == 0 else "–" if row.tau is None else f"{row.tau:.3g}"
    return {"method": row.method, "temperature": temperature, "τ": tau} | metric_cells(row)


def metric_cells(row: ComparisonRow) -> dict[str, str]:
    """The values of a row as text, by column: the metric and, if it has one, its unit."""
    return {
        f"{metric} ({UNITS[metric]})" if metric in UNITS else metric: interval_text(metric, value)
        for metric, value in row.values.items()
    }


def interval_text(metric: str, value: Interval) -> str:
    """A mean and its interval with the metric's decimals, such as ``21.34 [21.20, 21.49]``."""
    digits = DECIMALS.get(metric, OTHER_DECIMALS)
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table of rows given as cells by column.

    Its columns are those of all rows, in order of first appearance; missing cells are empty.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[row.get(column, "") for column in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
