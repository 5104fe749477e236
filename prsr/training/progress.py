"""The progress of training runs, as bars in a terminal."""

from __future__ import annotations

from typing import Any, NamedTuple

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from typing_extensions import Self


class Status(NamedTuple):
    """The progress of a run.

    Attributes:
        step: number of steps taken.
        steps: total number of steps.
        loss: of the last step; None if it has not been read.
        report: results of a validation, or empty.
    """

    step: int
    steps: int
    loss: float | None = None
    report: str = ""


class ProgressBars:
    """A bar for each run, with the reports of all runs above; a context manager.

    Args:
        visible: whether to show anything.
    """

    def __init__(self, *, visible: bool = True) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
            disable=not visible,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def show(self, name: str, status: Status) -> None:
        """Show the progress of the run called ``name``."""
        if name not in self.tasks:
            self.tasks[name] = self.progress.add_task(
                name, total=status.steps, completed=status.step, state=""
            )
        self.progress.update(self.tasks[name], completed=status.step)
        if status.loss is not None:
            self.progress.update(self.tasks[name], state=f"loss {status.loss:.3f}")
        if status.report and not self.progress.disable:
            self.progress.console.print(f"{name} step {status.step}: {status.report}", markup=False)
