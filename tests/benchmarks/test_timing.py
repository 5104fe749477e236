"""Timing: quantiles, and works in turn. Nothing is timed."""

from __future__ import annotations

from benchmarks.timing import Timing, interleaved


def test_timing_tells_median_and_quartiles():
    timing = Timing((5.0, 1.0, 4.0, 2.0, 3.0))
    assert (timing.median, timing.quartiles) == (3, (2, 4))
    assert timing.times(0.5).quartiles == (1, 2)
    assert Timing((6.0,)).quartiles == (6, 6)


def test_works_are_done_in_turn_and_the_first_time_does_not_count():
    done = []
    works = {name: lambda name=name: done.append(name) for name in "ab"}
    timings = interleaved(works, rounds=3, at_least=0)
    assert "".join(done) == "ab" * 4
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]
