"""``prsr experiment``: MNIST corners in one command."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from prsr.experiments.corner_digits import place_digits


@pytest.fixture
def corners(tmp_path):
    """The command for six digits, without the output folder."""
    digits = np.zeros((6, 1, 28, 28), np.uint8)
    digits[:, :, 6:22, 12:16] = 255
    np.save(tmp_path / "digits.npy", digits)
    data = ("--data", tmp_path / "digits.npy", "--test", tmp_path / "digits.npy")
    return ("experiment", "corners", *data, "--steps", 1, "--out")


def test_one_command_runs_the_corners_experiment(command, corners, tmp_path):
    code, printed, errors = command(*corners, tmp_path / "out")
    assert (code, errors) == (0, "")
    assert (tmp_path / "out" / "corners.md").read_text() in printed
    assert (tmp_path / "out" / "corners.png").is_file()


@pytest.mark.parametrize("name", ["corners.json", "corners.md", "corners.png"])
def test_results_of_another_program_are_not_replaced(command, corners, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("{}")
    code, _, errors = command(*corners, out)
    assert code == 2
    assert name in errors
    assert "--overwrite" in errors
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: "{}"}


def test_results_are_replaced_with_overwrite_and_by_a_later_run(command, corners, tmp_path):
    (tmp_path / "corners.md").write_text("another program's")
    assert command(*corners, tmp_path, "--overwrite")[0] == 0
    written = (tmp_path / "corners.md").read_text()
    (tmp_path / "corners.md").write_text("")
    assert command(*corners, tmp_path)[0] == 0
    assert (tmp_path / "corners.md").read_text() == written


def test_test_digits_get_corners_from_another_seed(command, tmp_path, monkeypatch):
    digits = np.zeros((40, 1, 28, 28), np.uint8)
    digits[:, :, 6:22, 12:16] = 255
    np.save(tmp_path / "digits.npy", digits)
    seen = []

    def run(training, testing, *_):
        seen[:] = training.pixels, testing.pixels
        (tmp_path / "table.md").touch()
        return tmp_path / "table.md"

    monkeypatch.setattr("prsr.experiments.corners.run_corners", run)
    data = ("--data", tmp_path / "digits.npy", "--test", tmp_path / "digits.npy")
    command("experiment", "corners", *data, "--seed", 3, "--out", tmp_path)
    for pixels, seed in zip(seen, (3, 4), strict=True):
        assert np.array_equal(pixels, place_digits(digits, seed).pixels)


def test_an_interruption_stops_all_trainings_and_leaves_no_unfinished_file(corners, tmp_path):
    runs = [tmp_path / "out" / method for method in ("recursive", "l2")]
    arguments = [*corners, tmp_path / "out", "--steps", 10**6]  # the last --steps counts
    process = subprocess.Popen(
        [sys.executable, "-m", "prsr", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not all((run / "sheets").is_dir() for run in runs):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=300)
    assert errors.strip() == "prsr: interrupted; all files written so far are complete"
    assert process.returncode == 130
    assert not list((tmp_path / "out").rglob(".writing-*"))
