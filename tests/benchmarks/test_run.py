"""A run of ``benchmarks.cpu``: what it does when other work disturbs a measurement."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks import machine, run
from benchmarks.timing import Timing


@pytest.mark.parametrize(
    ("shares", "kept"),
    [
        ([0.0], 1),
        ([0.03], 1),
        ([0.2, 0.01], 2),
        ([0.2, 0.05, 0.1], 2),  # never undisturbed: the least disturbed of three
    ],
)
def test_a_disturbed_measurement_is_repeated(monkeypatch, shares, kept):
    left, attempts = iter(shares), []
    monkeypatch.setattr(machine, "OtherWork", lambda: SimpleNamespace(share=lambda: next(left)))

    def interleaved(works, rounds):
        attempts.append((works, rounds))
        return {"work": Timing((float(len(attempts)),))}

    monkeypatch.setattr(run, "interleaved", interleaved)
    found = run.Run.interleaved(SimpleNamespace(rounds=5), {"work": print})
    assert attempts == len(shares) * [({"work": print}, 5)]
    assert found["work"].median == kept
