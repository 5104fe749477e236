"""Fifty concurrent raters send each answer twice; none is lost or counted twice."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.study_load import (
    NAME,
    SETTINGS,
    differences,
    make_study,
    stored_choices,
    take_studies,
)
from prsr.study.storage import Study

RATERS = 50


def test_fifty_concurrent_raters_lose_no_answer(server, study_folder):
    (study_folder / f"{NAME}.sqlite").unlink(missing_ok=True)
    study = make_study(study_folder)
    # In another thread, since Playwright may run an event loop in this one.
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(lambda: asyncio.run(take_studies(server, RATERS, pause=0)))
        chosen, _ = run.result()
    trials = 2 * SETTINGS.per_method + SETTINGS.catch
    assert [len(each) for each in chosen] == [trials] * RATERS
    stored = stored_choices(Study(study_folder, NAME))
    assert differences(chosen, stored) == 0
    assert study.count_raters() == RATERS
    assert len(study.answers()) == RATERS * trials


@pytest.mark.parametrize(
    "stored", [[], [{1: "left"}], [{1: "left", 2: "left"}], [{1: "left", 2: "right"}] * 2]
)
def test_differences_are_counted(stored):
    assert differences([{1: "left", 2: "right"}], stored) > 0
