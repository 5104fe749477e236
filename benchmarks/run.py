"""The state shared by the parts of one run of ``benchmarks.cpu``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from benchmarks import machine
from benchmarks.bounds import bounds, streamed_bytes
from benchmarks.report import Column, Record, Report, milliseconds, ms, times
from benchmarks.subject import Subject
from benchmarks.timing import Timing, interleaved
from prsr import PRSRConfig

ATTEMPTS = 3

Key = TypeVar("Key", bound=Hashable)

ENGINE_COLUMNS = (
    Column("engine", "engine", milliseconds),
    Column("bound", "bound", ms),
    Column("ratio", "over bound", times),
    Column("needed", "without zeros", ms),
    Column("needed_ratio", "over it", times),
)
"""The engine alone and its bounds, as :meth:`Run.with_bounds` gives them."""


@dataclass
class Run:
    """One run; the constructor measures the machine.

    Attributes:
        preset: name of the model's configuration.
        rounds: in which compared work is timed in turn.
        quick: measure fewer sizes, without the compiled comparator.
        report: collects the results.
        threads: of torch and the engine.
        subject: the model.
        streamed: bytes of weights that are read for every pixel.
        limits: of the machine, with all threads.
    """

    preset: str
    rounds: int
    quick: bool
    report: Report

    def __post_init__(self) -> None:
        self.threads = torch.get_num_threads()
        self.subject = Subject(PRSRConfig.preset(self.preset))
        self.streamed = streamed_bytes(self.subject.parts)
        self.limits = machine.limits(self.streamed, self.threads)

    def choose(self, everything: tuple[int, ...], quick: tuple[int, ...]) -> tuple[int, ...]:
        """The values to measure."""
        return quick if self.quick else everything

    def interleaved(self, works: Mapping[Key, Callable[[], object]]) -> dict[Key, Timing]:
        """Time functions in turn; again, at most twice, while other work disturbs them.

        Returns the least disturbed times.
        """
        attempts = []
        for _ in range(ATTEMPTS):
            other_work = machine.OtherWork()
            timings = interleaved(works, self.rounds)
            attempts.append((other_work.share(), timings))
            if attempts[-1][0] <= machine.DISTURBED:
                break
        return min(attempts, key=lambda attempt: attempt[0])[1]

    def with_bounds(self, subject: Subject, batch: int, engine: Timing) -> Record:
        """The seconds per image of the engine alone, its two bounds, and the ratios to them."""
        bound, needed = (
            sum(bounds(parts, self.limits, subject.pixels, batch).values())
            for parts in (subject.parts, subject.needed)
        )
        return {
            "engine": engine,
            "bound": bound,
            "ratio": engine.median / bound,
            "needed": needed,
            "needed_ratio": engine.median / needed,
        }

    def target(self, what: str, value: float, **limits: Any) -> None:
        """Call :meth:`Report.target` for the preset ``paper``; other presets have no targets."""
        if self.preset == "paper":
            self.report.target(what, value, **limits)
