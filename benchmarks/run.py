"""The state shared by the parts of one run of ``benchmarks.cpu``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from benchmarks import machine
from benchmarks.bounds import count_work, streamed_bytes
from benchmarks.report import Report
from benchmarks.subject import Subject
from benchmarks.timing import Timing, interleaved
from prsr import PRSRConfig
from prsr.engines.grouped_weights import pack_prior

ATTEMPTS = 3

Key = TypeVar("Key", bound=Hashable)


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
        parts: work per pixel.
        needed: the same without weights that are multiplied by hidden units that are zero.
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
        packed = pack_prior(self.subject.model.prior)
        self.parts, self.needed = count_work(packed), count_work(packed, self.subject.nonzero())
        self.streamed = streamed_bytes(self.parts)
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

    def target(self, what: str, value: float, **limits: Any) -> None:
        """Call :meth:`Report.target` for the preset ``paper``; other presets have no targets."""
        if self.preset == "paper":
            self.report.target(what, value, **limits)
