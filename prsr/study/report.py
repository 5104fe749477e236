"""What a study found: the share of answers in which raters were fooled, for each method."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from prsr.evaluation.compare import ComparisonRow, ComparisonTable
from prsr.evaluation.metrics import Interval
from prsr.study.storage import Answer

ATTENTIVE = 0.85
"""Share of the catch trials that a rater must get right to be counted."""

FOOLED = "share fooled"
"""The metric's name in tables."""


@dataclass(frozen=True)
class Exclusions:
    """Raters whose answers do not count, and why.

    Attributes:
        inattentive: raters with fewer than :data:`ATTENTIVE` of their catch trials right.
        unchecked: raters who have not answered a catch trial, in a study that has some.
    """

    inattentive: frozenset[int]
    unchecked: frozenset[int]


def find_exclusions(answers: Sequence[Answer], has_catch: bool) -> Exclusions:
    """The raters to exclude; only answers to catch trials decide.

    Args:
        answers: of the whole study.
        has_catch: whether the study has catch trials.
    """
    if not has_catch:
        return Exclusions(frozenset(), frozenset())
    right: Counter[int] = Counter()
    asked: Counter[int] = Counter()
    for answer in answers:
        if answer.method is None:
            asked[answer.rater] += 1
            right[answer.rater] += not answer.fooled
    raters = {answer.rater for answer in answers}
    return Exclusions(
        frozenset(r for r in asked if right[r] < ATTENTIVE * asked[r]),
        frozenset(r for r in raters if not asked[r]),
    )


def clustered_share(hits: Sequence[int], counts: Sequence[int], level: float = 0.95) -> Interval:
    """A share with an interval that allows for answers of one rater being alike.

    Wilson's interval at the effective number of answers p·(1−p) / variance (Korn and Graubard,
    *Confidence intervals for proportions with small expected number of positive counts*, 1998),
    with Student's t for the number of raters. The variance is that of a ratio estimator over
    raters. The effective number is never above the number of answers. Where all answers agree, the
    variance is zero and says nothing: each rater then counts as one answer.

    Args:
        hits: answers that count, for each rater.
        counts: all answers, for each rater; each at least 1.
        level: of confidence.

    Raises:
        ValueError: there are fewer than two raters.
    """
    raters = len(counts)
    if raters < 2:
        raise ValueError(f"an interval needs at least two raters, got {raters}")
    hit, count = np.asarray(hits, float), np.asarray(counts, float)
    total = count.sum()
    share = float(hit.sum() / total)
    residuals = hit - share * count
    variance = raters / (raters - 1) * float((residuals**2).sum()) / total**2
    spread = share * (1 - share)
    if spread == 0:
        effective = float(raters)
    else:
        effective = float(min(total, spread / variance)) if variance else float(total)
    quantile = float(student.ppf((1 + level) / 2, raters - 1))
    ratio = quantile**2 / effective
    centre = (share + ratio / 2) / (1 + ratio)
    half = quantile * math.sqrt(spread / effective + ratio / (4 * effective)) / (1 + ratio)
    # Rounding must not put the share outside its interval.
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def make_report(
    answers: Sequence[Answer], methods: Sequence[str], raters: int, has_catch: bool
) -> tuple[ComparisonTable, dict[str, str]]:
    """The share fooled of each method as a table of ``prsr evaluate``, and the facts about it.

    Args:
        answers: of the whole study.
        methods: names, in the order of the table.
        raters: who have begun.
        has_catch: whether the study has catch trials.

    Raises:
        ValueError: a method has counted answers from fewer than two raters.
    """
    excluded = find_exclusions(answers, has_catch)
    out = excluded.inattentive | excluded.unchecked
    counted = [a for a in answers if a.rater not in out and a.method is not None]
    rows = []
    for method in methods:
        hits: Counter[int] = Counter()
        counts: Counter[int] = Counter()
        for answer in counted:
            if answer.method == method:
                counts[answer.rater] += 1
                hits[answer.rater] += answer.fooled
        if len(counts) < 2:
            raise ValueError(
                f"method {method!r} has counted answers of {len(counts)} raters; a report needs at "
                f"least two ({len(out)} of {raters} raters are excluded)"
            )
        shares = clustered_share([hits[r] for r in counts], list(counts.values()))
        rows.append(ComparisonRow(method, None, {FOOLED: shares}))
    about = {
        "answers": f"{len(counted):,} counted, of {len({a.rater for a in counted})} raters",
        "raters": f"{raters} have begun, {len({a.rater for a in answers})} have answered",
        "excluded": f"{len(excluded.inattentive)} raters with fewer than {ATTENTIVE:.0%} of their "
        f"catch trials right, {len(excluded.unchecked)} who answered no catch trial",
        "shown more than once": f"{sum(a.showings > 1 for a in counted)} of the counted pairs",
        FOOLED: "answers that chose the generated image; 0.5 is perfect confusion",
        "intervals": "95%, clustered by rater",
    }
    return ComparisonTable(rows, [], {}), about


def as_csv(answers: Sequence[Answer]) -> str:
    """A line for each answer, catch trials and excluded raters among them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["rater", "position", "input", "method", "catch", "real side", "chosen side"]
    writer.writerow([*columns, "fooled", "showings"])
    for a in answers:
        sides = ["left" if on_left else "right" for on_left in (a.real_on_left, a.chose_left)]
        catch = int(a.method is None)
        row = [a.rater, a.position, a.input, a.method or "bicubic", catch, *sides]
        writer.writerow([*row, int(a.fooled), a.showings])
    return text.getvalue()


def plot_report(comparison: ComparisonTable) -> Any:
    """The shares with their intervals as a matplotlib figure; a line marks perfect confusion."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1.2 + 0.5 * len(comparison.images)), layout="constrained")
    axes = figure.subplots()
    names = [row.method for row in comparison.images]
    found = [row.values[FOOLED] for row in comparison.images]
    errors = [[f.mean - f.low for f in found], [f.high - f.mean for f in found]]
    axes.errorbar([f.mean for f in found], names, xerr=errors, fmt="o", capsize=4)
    axes.axvline(0.5, linestyle="--", color="grey", label="perfect confusion")
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5), xlabel=f"{FOOLED}, with 95% interval")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    return figure
