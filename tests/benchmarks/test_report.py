"""The report of a benchmark: which targets are met."""

from __future__ import annotations

import pytest

from benchmarks.report import Report


@pytest.mark.parametrize(
    ("limits", "value", "met"),
    [
        ({"most": 1.2}, 1.2, True),
        ({"most": 1.2}, 1.21, False),
        ({"least": 8}, 8, True),
        ({"least": 8}, 7.9, False),
        ({"most": 1.2}, float("nan"), False),
    ],
)
def test_bars_are_met_or_missed(limits, value, met, capsys):
    report = Report()
    report.target("what", value, **limits)
    assert report.results["targets"][0]["met"] is met
    assert ("MISSED" in capsys.readouterr().out) is not met
