"""The report recovers the known shares of simulated raters."""

import csv
import json
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from prsr.study.report import FOOLED, clustered_share, find_exclusions, make_report
from prsr.study.schedule import Schedule
from prsr.study.storage import Answer
from prsr.web.study_pages import study_router

METHODS = ("weak", "strong")
SCHEDULE = Schedule(60, 2, 20, 8, seed=3)
TRUTH = {"weak": 0.12, "strong": 0.42}
"""The mean share of trials in which a method fools attentive raters."""


def simulate(seed, attentive=30, careless=0):
    """Answers of raters of different ability; careless ones answer at random."""
    rng = np.random.default_rng(seed)
    answers = []
    for number in range(attentive + careless):
        # Beta-distributed around the true mean, so that answers of one rater are correlated.
        fooled = {m: rng.beta(8 * p, 8 * (1 - p)) for m, p in TRUTH.items()} | {None: 0.01}
        for position, pair in enumerate(SCHEDULE.pairs(number), start=1):
            method = None if pair.method is None else METHODS[pair.method]
            share = fooled[method] if number < attentive else 0.5
            is_fooled = rng.random() < share
            chose_left = pair.real_on_left != is_fooled
            answers.append(
                Answer(
                    number + 1,
                    position,
                    f"{pair.input}",
                    method,
                    pair.real_on_left,
                    bool(chose_left),
                    1,
                )
            )
    return answers


def report(answers):
    raters = len({a.rater for a in answers})
    comparison, about = make_report(answers, METHODS, raters, has_catch=True)
    return {row.method: row.values[FOOLED] for row in comparison.images}, about


def test_the_report_recovers_the_truth_and_its_intervals_cover_it():
    covered = dict.fromkeys(METHODS, 0)
    means = {method: [] for method in METHODS}
    runs = 300
    for seed in range(runs):
        found, _ = report(simulate(seed))
        for method, interval in found.items():
            means[method].append(interval.mean)
            covered[method] += interval.low <= TRUTH[method] <= interval.high
    for method in METHODS:
        assert np.mean(means[method]) == pytest.approx(TRUTH[method], abs=0.01)
        assert 0.92 < covered[method] / runs < 0.985  # 95%, ± two standard deviations of 300 runs


def test_intervals_are_wider_than_for_independent_answers():
    found, _ = report(simulate(0))
    n, p = 30 * 20, found["strong"].mean
    independent = 1.96 * np.sqrt(p * (1 - p) / n)
    assert (found["strong"].high - found["strong"].low) / 2 > 1.3 * independent


def test_careless_raters_are_found_by_their_catch_trials_and_excluded():
    answers = simulate(5, attentive=30, careless=10)
    excluded = find_exclusions(answers, has_catch=True)
    assert (
        len(excluded.inattentive & {*range(31, 41)}) >= 9
    )  # random answers pass in 9 of 256 cases
    assert not excluded.inattentive & {*range(1, 31)}
    found, about = report(answers)
    assert found["weak"].low < TRUTH["weak"] < found["weak"].high
    assert about["excluded"].startswith(f"{len(excluded.inattentive)} raters with fewer than 85%")


def test_raters_without_catch_trial_answers_are_excluded_and_stated():
    answers = simulate(1)
    kept = [a for a in answers if a.rater != 4 or a.method is not None]
    assert find_exclusions(kept, has_catch=True).unchecked == {4}
    assert find_exclusions(kept, has_catch=False).unchecked == frozenset()
    _, about = report(kept)
    assert "1 who answered no catch trial" in about["excluded"]
    inattentive = len(find_exclusions(kept, has_catch=True).inattentive)
    assert about["answers"].endswith(f"of {29 - inattentive} raters")


def test_unanimous_answers_give_an_interval_of_positive_width():
    interval = clustered_share([0] * 10, [20] * 10)
    assert (interval.mean, interval.low) == (0, 0)
    assert 0.2 < interval.high < 0.4  # as for ten answers, one per rater


def test_equal_raters_give_the_wilson_interval_with_students_quantile():
    interval = clustered_share([5, 5, 5, 5], [10, 10, 10, 10])
    quantile, n = 3.182446, 40
    half = quantile * np.sqrt(0.25 / n + quantile**2 / (4 * n**2)) / (1 + quantile**2 / n)
    assert interval.high - interval.mean == pytest.approx(half, abs=1e-6)


def test_one_rater_is_too_few_for_an_interval():
    with pytest.raises(ValueError, match="two raters"):
        clustered_share([1], [2])
    with pytest.raises(ValueError, match="answers of 1 raters"):
        report(simulate(0, attentive=1))


def answer_all(study, raters, fooled):
    """Answer every trial; the methods in ``fooled`` fool the raters."""
    for token in [study.add_rater() for _ in range(raters)]:
        while trial := study.next_trial(token):
            with sqlite3.connect(study.path) as database:
                method, on_left = database.execute(
                    "SELECT method.name, real_on_left FROM trial LEFT JOIN method"
                    " ON method.id = method WHERE token = ?",
                    (trial.token,),
                ).fetchone()
            study.answer(token, trial.token, bool(on_left) != (method in fooled))


def test_one_command_creates_a_study_and_one_writes_its_report(command, folders, tmp_path):
    from prsr.study.storage import Study

    studies, out = tmp_path / "studies", tmp_path / "report"
    methods = ("--method", f"good one={folders['good']}", "--method", f"bad={folders['bad']}")
    numbers = ("--per-method", 4, "--catch", 2, "--studies", studies)
    code, printed, errors = command(
        "study", "new", "faces", "--real", folders["real"], *methods, *numbers
    )
    assert (code, errors) == (0, "")
    study = Study(studies, "faces")
    answer_all(study, 3, fooled={"good one"})
    code, printed, errors = command("study", "report", "faces", "--studies", studies, "-o", out)
    assert (code, errors) == (0, "")
    assert (out / "table.md").read_text() in printed
    table = json.loads((out / "table.json").read_text())
    assert [row["values"][FOOLED]["mean"] for row in table["images"]] == [1, 0]
    assert "perfect confusion" in table["about"][FOOLED]
    with (out / "table.csv").open(newline="") as file:
        assert [line["metric"] for line in csv.DictReader(file)] == [FOOLED] * 2
    with (out / "answers.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 30
    assert {(line["method"], line["fooled"]) for line in lines} == {
        ("good one", "1"),
        ("bad", "0"),
        ("bicubic", "0"),
    }
    with Image.open(out / "fooled.png") as plot:
        assert min(plot.size) > 100
    assert command("study", "report", "faces", "--studies", studies, "-o", out)[0] == 0


def test_a_study_on_read_only_storage_is_reported_but_not_served(command, study, read_only):
    answer_all(study, 2, fooled=set())
    pages = FastAPI()
    with read_only(study.path.parent) as folder, tempfile.TemporaryDirectory() as out:
        done = command("study", "report", "faces", "--studies", folder, "-o", f"{out}/report")
        assert (done[0], done[2]) == (0, "")
        assert (Path(out) / "report" / "answers.csv").read_text().count("\n") == 21
        pages.include_router(study_router(folder))
        response = TestClient(pages).get("/study/faces")
    assert response.status_code == 503
    assert response.json()["detail"] == "The answers to this study cannot be stored."


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("new", "../a", "--real", "r", "--method", "a=b"), "name of a study"),
        (("new", "a", "--real", "r", "--method", "a"), "NAME=FOLDER"),
        (("new", "a", "--real", "r", "--method", "a=b", "--method", "a=c"), "twice"),
        (("new", "a", "--real", "absent", "--method", "a=b"), "absent"),
        (("new", "a", "--real", "r", "--method", "a=b", "--exposure", "0"), "exposure"),
        (("report", "absent"), "no study"),
    ],
)
def test_invalid_commands_give_one_line_and_leave_no_file(
    arguments, match, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, _, errors = command("study", *arguments)
    assert code == 2
    assert match in errors
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
