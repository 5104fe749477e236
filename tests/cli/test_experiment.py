"""``prsr experiment``: MNIST corners in one command."""

import numpy as np

from prsr.experiments.corner_digits import place_digits


def test_the_corners_are_one_command(command, tmp_path):
    digits = np.zeros((6, 1, 28, 28), np.uint8)
    digits[:, :, 6:22, 12:16] = 255
    np.save(tmp_path / "digits.npy", digits)
    code, printed, errors = command(
        *("experiment", "corners", "--data", tmp_path / "digits.npy"),
        *("--test", tmp_path / "digits.npy", "--steps", 1, "--out", tmp_path / "out"),
    )
    assert (code, errors) == (0, "")
    assert (tmp_path / "out" / "corners.md").read_text() in printed
    assert (tmp_path / "out" / "corners.png").is_file()


def test_the_test_digits_have_corners_of_their_own(command, tmp_path, monkeypatch):
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
