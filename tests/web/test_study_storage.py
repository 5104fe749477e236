"""The study on disk: pairs, answers and durability."""

import contextlib
import io
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from prsr.study.database import connect
from prsr.study.storage import (
    Settings,
    Study,
    UnknownTrial,
    create_study,
    list_studies,
    study_path,
)
from prsr.study.study_images import read_inputs


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_pair_is_the_real_image_and_a_sample_for_the_same_input(study, folders):
    def stored(folder):
        return {p.stem: np.asarray(Image.open(p)).tobytes() for p in folder.iterdir()}

    real, samples = stored(folders["real"]), {m: stored(folders[m]) for m in ("good", "bad")}
    rater = study.add_rater()
    seen = []
    while trial := study.next_trial(rater):
        seen.append([pixels(side).tobytes() for side in (trial.left, trial.right)])
        study.answer(rater, trial.token, True)
    answers = study.answers()
    assert len(answers) == len(seen) == 10
    for (left, right), answer in zip(seen, answers, strict=True):
        truth, generated = (left, right) if answer.real_on_left else (right, left)
        assert truth == real[answer.input]
        if answer.method is None:
            assert generated not in [*samples["good"].values(), *samples["bad"].values()]
        else:
            assert generated == samples[answer.method][answer.input]


def test_a_catch_trial_shows_the_bicubic_enlargement(study, folders):
    rater = study.add_rater()
    while trial := study.next_trial(rater):
        study.answer(rater, trial.token, True)
        answer = study.answers()[-1]
        if answer.method is None:
            low = Image.open(folders["real"] / f"{answer.input}.png").resize((2, 2), 3)
            shown = trial.right if answer.real_on_left else trial.left
            assert np.array_equal(pixels(shown), np.asarray(low.resize((8, 8), 3)))


def test_the_first_answer_counts(study):
    rater = study.add_rater()
    trial = study.next_trial(rater)
    assert study.answer(rater, trial.token, True)
    assert not study.answer(rater, trial.token, False)
    (answer,) = study.answers()
    assert answer.chose_left


def test_concurrent_answers_to_a_pair_count_once(study):
    rater = study.add_rater()
    trial = study.next_trial(rater)
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda _: study.answer(rater, trial.token, True), range(32)))
    assert sum(stored) == 1
    assert len(study.answers()) == 1


def test_a_rater_can_answer_only_pairs_shown_to_them(study):
    rater, other = study.add_rater(), study.add_rater()
    trial = study.next_trial(rater)
    with sqlite3.connect(study.path) as database:
        rows = database.execute("SELECT token FROM trial WHERE rater = 1 AND position = 2")
        (unseen,) = rows.fetchone()
    for who, token in ((other, trial.token), (rater, unseen), (rater, ""), (rater, "x" * 22)):
        with pytest.raises(UnknownTrial):
            study.answer(who, token, True)
    with pytest.raises(LookupError):
        study.answer("nobody", trial.token, True)
    assert study.answers() == []


def test_repeated_showings_of_a_pair_are_counted(study):
    rater = study.add_rater()
    assert study.next_trial(rater) == study.next_trial(rater)
    study.answer(rater, study.next_trial(rater).token, False)
    assert study.answers()[0].showings == 3


def test_answers_are_durable_and_writers_do_not_block_readers(study, monkeypatch):
    opened = []

    def watched(path, *, durable):
        database = connect(path, durable=durable)
        pragmas = ("journal_mode", "synchronous")
        opened.append([database.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas])
        return database

    monkeypatch.setattr("prsr.study.storage.connect", watched)
    rater = study.add_rater()
    trial = study.next_trial(rater)
    study.answer(rater, trial.token, True)
    full, normal = 2, 1
    assert opened == [["wal", normal], ["wal", normal], ["wal", full]]


def test_a_study_on_read_only_storage_can_be_read_but_not_changed(study, read_only):
    rater = study.add_rater()
    study.answer(rater, study.next_trial(rater).token, True)
    answers = study.answers()
    with read_only(study.path.parent) as folder:
        copy = Study(folder, "faces")
        assert copy.answers() == answers
        assert (copy.count_raters(), copy.has_rater(rater)) == (1, True)
        for change in (copy.add_rater, lambda: copy.next_trial(rater)):
            with pytest.raises(PermissionError, match="must be writable"):
                change()
        assert [path.name for path in folder.iterdir()] == ["faces.sqlite"]


def test_answers_in_a_wal_file_are_read_or_the_study_is_refused(study, read_only, tmp_path):
    with contextlib.closing(connect(study.path)) as idle:  # keeps the WAL file
        idle.execute("SELECT 1 FROM study").fetchone()
        rater = study.add_rater()
        study.answer(rater, study.next_trial(rater).token, True)
        answers = study.answers()
        with read_only(study.path.parent) as folder:
            assert Study(folder, "faces").answers() == answers
        incomplete = tmp_path / "incomplete"
        incomplete.mkdir()
        for suffix in ("", "-wal"):  # without the index of the WAL file
            shutil.copy(f"{study.path}{suffix}", incomplete)
    with read_only(incomplete) as folder, pytest.raises(PermissionError, match="must be writable"):
        Study(folder, "faces")


def test_a_study_is_never_replaced(study, folders):
    before = study.path.read_bytes()
    inputs = read_inputs(folders["real"], {"good": folders["good"]}, 4)
    with pytest.raises(FileExistsError, match="exists already"):
        create_study(study.path, study.settings, ["good"], inputs)
    assert study.path.read_bytes() == before
    assert [path.name for path in study.path.parent.iterdir()] == ["faces.sqlite"]


@pytest.mark.parametrize(
    "name", ["", "..", "../faces", "a/b", "a" * 65, "Größe", "a\n", ".a", "-a"]
)
def test_invalid_names_of_studies_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="the name of a study"):
        study_path(tmp_path, name)


def test_only_studies_are_listed_and_opened(studies):
    (studies / "broken.sqlite").write_bytes(b"no database" * 1000)
    (studies / "not ours.sqlite").touch()
    (studies / "notes.txt").touch()
    with sqlite3.connect(studies / "other.sqlite") as database:
        database.execute("CREATE TABLE study (a)")
    assert list_studies(studies) == ["broken", "faces", "other"]
    for name in ("broken", "other"):
        with pytest.raises(ValueError, match=name):
            Study(studies, name)
    with pytest.raises(FileNotFoundError, match="absent"):
        Study(studies, "absent")
    assert list_studies(studies / "nowhere") == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"question": "  "}, "question"),
        ({"question": "a" * 201}, "question"),
        ({"exposure": 49}, "exposure"),
        ({"seed": -1}, "seed"),
    ],
)
def test_invalid_settings_are_refused(change, match):
    usual = {"question": "Which?", "exposure": 1000, "per_method": 1, "catch": 0, "seed": 0}
    with pytest.raises(ValueError, match=match):
        Settings(**(usual | change))


def test_folders_that_do_not_match_are_refused(folders, tmp_path):
    extra = folders["good"] / "more.png"
    Image.new("RGB", (8, 8)).save(extra)
    with pytest.raises(ValueError, match="more is not in"):
        read_inputs(folders["real"], {"good": folders["good"]}, 4)
    extra.unlink()
    first = next(folders["good"].iterdir())
    Image.new("RGB", (8, 4)).save(first)
    with pytest.raises(ValueError, match="must have the size"):
        read_inputs(folders["real"], {"good": folders["good"]}, 4)
    with pytest.raises(ValueError, match="multiples of 16"):
        read_inputs(folders["real"], {"bad": folders["bad"]}, 16)
    first.write_bytes(b"no image")
    with pytest.raises(ValueError, match="cannot be read"):
        read_inputs(folders["real"], {"good": folders["good"]}, 4)
    with pytest.raises(FileNotFoundError):
        read_inputs(folders["real"], {"absent": tmp_path / "absent"}, 4)
