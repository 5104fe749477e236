"""Wall times, told by their median and quartiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """Seconds of one piece of work, each of several times that it was done."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """A quarter of the times lie below the first, a quarter above the second."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def times(self, factor: float) -> Timing:
        """That of ``factor`` times the work: 1/N of it is one image's in a batch of N."""
        return Timing(tuple(factor * second for second in self.seconds))


REST = 0.03
"""Seconds between two pieces of work: torch's threads spin for ten milliseconds after the first."""


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(
    works: Mapping[Key, Callable[[], object]], rounds: int, at_least: float = 0.4
) -> dict[Key, Timing]:
    """Time pieces of work in turn, so that a machine that slows down slows them all.

    Args:
        works: each is done once beforehand, which does not count.
        rounds: how often each has its turn.
        at_least: seconds; in its turn, a piece is done again and again until they have passed.
    """
    seconds: dict[Key, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            time.sleep(REST)
            end = time.perf_counter() + at_least
            seconds[name].append(timed(work))
            while time.perf_counter() < end:
                seconds[name].append(timed(work))
    return {name: Timing(tuple(values)) for name, values in seconds.items()}
