"""Wall-clock times with median and quartiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """The times of repeated work in seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median time."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and third quartiles."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def times(self, factor: float) -> Timing:
        """The timing of ``factor`` times the work, such as 1/N for one image in a batch of N."""
        return Timing(tuple(factor * second for second in self.seconds))


REST = 0.03
"""Seconds between measurements, because torch's threads spin for 10 ms after each."""


def timed(work: Callable[[], object]) -> float:
    """The seconds that one call of ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(
    works: Mapping[Key, Callable[[], object]], rounds: int, at_least: float = 0.4
) -> dict[Key, Timing]:
    """Time several functions in turn, so that a slowdown of the machine affects all of them.

    Args:
        works: functions by name; each is called once as a warm-up.
        rounds: number of turns of each function.
        at_least: duration of a turn in seconds, in which the function is called repeatedly.
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
