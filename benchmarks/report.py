"""The output of a benchmark: printed tables, targets met or missed, and a JSON file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.timing import Timing

Record = dict[str, Any]


def milliseconds(timing: Timing) -> str:
    """Median and quartiles in milliseconds."""
    low, high = timing.quartiles
    return f"{ms(timing.median)} ({ms(low)}–{ms(high)})"


def ms(seconds: float) -> str:
    """Seconds as milliseconds with about three digits."""
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(ratio: float) -> str:
    """A ratio, such as 1.15×, 15.2× or 3,400×."""
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:,.1f}×" if ratio < 100 else f"{ratio:,.0f}×"


def whole_seconds(timing: Timing) -> str:
    """The median in whole seconds."""
    return f"{timing.median:,.0f} s"


def megabytes(count: float) -> str:
    """Bytes as MB."""
    return f"{count / 1e6:,.1f}"


class Column:
    """A column of a table: the key of its values in the records, a heading and a formatter."""

    def __init__(self, key: str, heading: str, show: Callable[[Any], str] = str) -> None:
        self.key, self.heading, self.show = key, heading, show

    def cell(self, record: Record) -> str:
        """The text of a cell; a dash if the record has no value."""
        value = record.get(self.key)
        return "–" if value is None else self.show(value)


class Report:
    """Prints results, and collects them for the JSON file.

    Args:
        path: of the JSON file, replaced after each table, in case the process is ended; or None.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.console = Console(width=130, highlight=False)
        self.results: dict[str, Any] = {"targets": [], "other_work": {}, "round_trips": {}}

    def print_facts(self, key: str, values: dict[str, str]) -> None:
        """Print lines of "name: value"."""
        self.results[key] = values
        for name, value in values.items():
            self.console.print(f"[bold]{name}[/bold]: {value}")

    def table(
        self, key: str, title: str, columns: Sequence[Column], records: list[Record], note: str = ""
    ) -> None:
        """Print a table and a note below it; the JSON file gets the records."""
        self.results[key] = records
        table = Table(title=title, title_justify="left", title_style="bold")
        for column in columns:
            table.add_column(column.heading, justify="right")
        for record in records:
            table.add_row(*(column.cell(record) for column in columns))
        self.console.print()
        self.console.print(table)
        if note:
            self.console.print(note)
        self.write()

    def target(
        self,
        what: str,
        value: float,
        *,
        most: float | None = None,
        least: float = 0,
        show: Callable[[float], str] = times,
    ) -> None:
        """Print whether a value is at most ``most``, or without that, at least ``least``."""
        met = value >= least if most is None else value <= most
        limit = f">= {show(least)}" if most is None else f"<= {show(most)}"
        style = "green" if met else "red"
        verdict = "met" if met else "MISSED"
        target = {"what": what, "target": limit, "value": value, "met": met}
        self.results["targets"].append(target)
        self.console.print(f"{what}, target {limit}: {show(value)}, [{style}]{verdict}[/{style}]")

    def write(self) -> None:
        """Write all results so far as JSON, times in seconds, memory in bytes."""
        if self.path is not None:
            text = json.dumps(self.results, indent=2, ensure_ascii=False, default=encode)
            self.path.write_text(text + "\n", encoding="utf-8")


def encode(timing: Timing) -> dict[str, Any]:
    """A timing for JSON."""
    low, high = timing.quartiles
    return {"median": timing.median, "quartiles": [low, high], "runs": len(timing.seconds)}
