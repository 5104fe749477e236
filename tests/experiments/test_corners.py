"""MNIST corners: ambiguous inputs, the classifier and its thresholds, and the experiment."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from prsr.evaluation.metrics import share_interval
from prsr.experiments.corner_digits import (
    CONFIG,
    Classification,
    CornerDigits,
    classify,
    place_digits,
    read_digits,
)
from prsr.experiments.corners import run_corners, shares


def strokes(count=40, seed=0):
    """Images like digits, ``uint8 [N, 1, 28, 28]``: a vertical and a horizontal bar."""
    rng = np.random.default_rng(seed)
    digits = np.zeros((count, 1, 28, 28), np.uint8)
    for digit in digits:
        x, y = rng.integers(6, 20, 2)
        digit[0, 5:23, x : x + 3] = 255
        digit[0, y : y + 3, 6:22] = 200
    return digits


@pytest.fixture
def digits():
    return place_digits(strokes(), seed=0)


def moved(pixels):
    """The digits moved to the other corner."""
    other = np.zeros_like(pixels)
    other[..., :10, :10], other[..., 10:, 10:] = pixels[..., 10:, 10:], pixels[..., :10, :10]
    return other


def test_a_digit_is_in_one_corner_and_the_input_does_not_show_which(digits):
    assert digits.pixels.shape == (40, 1, 20, 20)
    assert digits.pixels.max() == CONFIG.levels - 1
    top_left = digits.pixels[..., :10, :10].any(axis=(1, 2, 3))
    bottom_right = digits.pixels[..., 10:, 10:].any(axis=(1, 2, 3))
    assert (top_left ^ bottom_right).all()
    assert 10 <= top_left.sum() <= 30
    rest = digits.pixels.copy()
    rest[..., :10, :10] = rest[..., 10:, 10:] = 0
    assert not rest.any()
    low, _ = digits.batch(slice(None))
    assert np.array_equal(digits.inputs(moved(digits.pixels)), low.numpy())
    assert low.shape == (40, 1, 5, 5)


def test_the_input_is_the_reduced_digit():
    canvas = np.zeros((1, 1, 20, 20), np.uint8)
    canvas[0, 0, 10:12, 12:14] = [[3, 4], [5, 4]]
    canvas[0, 0, 18:, 18:] = 15
    expected = np.zeros((5, 5))
    expected[0, 1], expected[4, 4] = 4, 15
    assert np.array_equal(CornerDigits(canvas, CONFIG).inputs(canvas)[0, 0], expected)


def test_the_seed_determines_the_corners():
    one, again, other = (place_digits(strokes(), seed).pixels for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_the_true_image_is_classified_as_single_in_its_corner(digits):
    verdicts = classify(digits.pixels, digits)
    top_left = digits.pixels[..., :10, :10].any(axis=(1, 2, 3))
    assert np.array_equal(verdicts.top_left, top_left)
    assert np.array_equal(verdicts.bottom_right, ~top_left)
    assert not verdicts.both.any()
    other = classify(moved(digits.pixels), digits)
    assert np.array_equal(other.top_left, verdicts.bottom_right)
    assert np.array_equal(other.bottom_right, verdicts.top_left)


def shifted(pixels):
    """The digits moved to a quarter in which none may be."""
    return np.roll(pixels, 10, axis=3)


def filled(pixels):
    """The quarter of the digit filled with white."""
    quarters = np.zeros_like(pixels)
    top_left = pixels[..., :10, :10].any(axis=(1, 2, 3))
    quarters[top_left, :, :10, :10] = quarters[~top_left, :, 10:, 10:] = 15
    return quarters


def striped(pixels):
    """Every other row in one corner, the remaining rows in the other."""
    other = moved(pixels)
    other[..., ::2, :] = pixels[..., ::2, :]
    return other


def specked(pixels):
    """The digit and a small mark in the other corner."""
    marked = pixels.copy()
    for image in marked[:, 0]:
        at = 10 if image[:10, :10].any() else 0
        image[at + 4 : at + 7, at + 4 : at + 6] = 15
    return marked


@pytest.mark.parametrize(
    ("mutation", "both"),
    [
        (lambda pixels: np.maximum(pixels, moved(pixels)), True),  # twice
        (lambda pixels: np.maximum(pixels, moved(pixels)) // 2, True),  # two ghosts
        (striped, True),
        (specked, True),
        (np.zeros_like, False),
        (lambda pixels: pixels // 3, False),  # a ghost
        (filled, False),
        (shifted, False),
        (lambda pixels: np.maximum(pixels, shifted(pixels)), False),
        (lambda pixels: np.full_like(pixels, 15), True),
        (lambda pixels: np.random.default_rng(0).integers(0, 16, pixels.shape), True),
    ],
)
def test_what_is_not_one_digit_in_one_corner_is_not_single(digits, mutation, both):
    verdicts = classify(mutation(digits.pixels).astype(np.uint8), digits)
    assert not verdicts.top_left.any()
    assert not verdicts.bottom_right.any()
    assert verdicts.both.all() if both else not verdicts.both.any()


def test_a_slightly_fainter_or_noisier_digit_is_still_single(digits):
    fainter = digits.pixels - digits.pixels // 5
    noise = np.random.default_rng(0).random(digits.pixels.shape) < 0.02
    for pixels in (fainter, np.maximum(digits.pixels, noise.astype(np.uint8) * 3)):
        verdicts = classify(pixels, digits)
        assert (verdicts.top_left | verdicts.bottom_right).all()


def painted(*corners):
    """One image; each corner is y, x, number of pixels and their level."""
    canvas = np.zeros((1, 1, 20, 20), np.uint8)
    for y, x, count, level in corners:
        quarter = np.zeros(100, np.uint8)
        quarter[:count] = level
        canvas[0, 0, y : y + 10, x : x + 10] += quarter.reshape(10, 10)
    return canvas


@pytest.mark.parametrize(
    ("corners", "single", "both"),
    [
        # The digit's energy is 20 · 10² = 2,000: half is 1,000, twice 4,000, a twentieth 100.
        ([(0, 0, 10, 10)], False, False),
        ([(0, 0, 11, 10)], True, False),
        ([(0, 0, 39, 10)], True, False),
        ([(0, 0, 40, 10)], False, False),
        ([(0, 0, 20, 10), (0, 10, 99, 1)], True, False),
        ([(0, 0, 20, 10), (0, 10, 100, 1)], False, False),
        ([(0, 0, 20, 10), (0, 10, 60, 1), (10, 0, 40, 1)], False, False),
        ([(0, 0, 20, 10), (10, 10, 99, 1)], True, False),
        ([(0, 0, 20, 10), (10, 10, 100, 1)], False, False),
        ([(0, 0, 20, 10), (10, 10, 26, 2)], False, True),
        ([(0, 0, 26, 2), (10, 10, 26, 2)], False, True),
        ([(0, 0, 25, 2), (10, 10, 26, 2)], False, False),
    ],
)
def test_the_classifier_has_the_stated_thresholds(corners, single, both):
    digit = CornerDigits(painted((0, 0, 20, 10)), CONFIG)
    images = painted(*corners)
    verdicts = classify(images, digit)
    assert (verdicts.top_left[0], verdicts.both[0]) == (single, both)
    turned = classify(images[..., ::-1, ::-1], digit)
    assert (turned.bottom_right[0], turned.both[0]) == (single, both)


def test_shares_are_fractions_of_the_verdicts():
    top_left, bottom_right, both = np.zeros((3, 20), np.bool_)
    top_left[:4] = bottom_right[4:6] = both[6:17] = True
    found = shares(Classification(top_left, bottom_right, both))
    assert {name: round(share.mean * 20) for name, share in found.items()} == {
        "single": 6,
        "top left": 4,
        "bottom right": 2,
        "both corners": 11,
    }


@pytest.mark.parametrize(("true", "total"), [(0, 997), (981, 997), (997, 997)])
def test_intervals_of_shares_are_wilson_intervals(true, total):
    z = 1.959963984540054
    mean = true / total
    centre = (mean + z * z / (2 * total)) / (1 + z * z / total)
    half = z * np.sqrt(mean * (1 - mean) / total + (z / (2 * total)) ** 2) / (1 + z * z / total)
    found = share_interval(np.arange(total) < true)
    assert (found.mean, found.low, found.high) == pytest.approx(
        (mean, centre - half, centre + half), abs=1e-12
    )
    assert found.high - found.low > 0.003


def test_subsets_of_the_digits_keep_their_inputs(digits):
    first = digits.first(3)
    assert type(first) is CornerDigits
    assert torch.equal(first.batch(slice(None))[0], digits.batch(slice(3))[0])
    assert all(type(part) is CornerDigits for part in digits.split(10))


def test_files_without_digits_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such array file"):
        read_digits(tmp_path / "none.npy")
    np.save(tmp_path / "small.npy", np.zeros((2, 1, 20, 20), np.uint8))
    with pytest.raises(ValueError, match=r"\[N, 1, 28, 28\]"):
        read_digits(tmp_path / "small.npy")


class Fake:
    """Returns the true images at one temperature and black ones at any other."""

    def __init__(self, truth, temperature):
        self.truth, self.temperature = truth, temperature

    def sample(self, lr, temperature=1.0, *, seed):
        right = temperature == self.temperature and seed == 5
        return self.truth if right else torch.zeros_like(self.truth)


def test_independent_samples_use_temperature_one_and_argmax_zero(digits, tmp_path, monkeypatch):
    _, truth = digits.batch(slice(None))
    temperatures = {"l2": 1.0, "independent": 1.0, "recursive": 1.0}

    def single_shares():
        run_corners(digits, digits, 1, tmp_path, 5, torch.device("cpu"))
        found = json.loads((tmp_path / "corners.json").read_text())["shares"]
        return [found[name]["single"]["mean"] for name in ("independent", "argmax", "recursive")]

    monkeypatch.setattr(
        "prsr.experiments.corners.method_for",
        lambda model: Fake(truth, temperatures[model.method]),
    )
    assert single_shares() == [1, 0, 1]
    temperatures["independent"] = 0.0
    assert single_shares() == [0, 1, 1]


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (16, 3)])
def test_there_are_as_many_processes_as_threads_and_at_most_one_for_each_model(
    digits, tmp_path, monkeypatch, threads, cores, expected
):
    def stop(work, runs, processes, receive):
        assert list(runs) == ["recursive", "l2", "independent"]
        raise InterruptedError(processes)

    monkeypatch.setattr("prsr.experiments.corners.call_side_by_side", stop)
    threads(cores)
    with pytest.raises(InterruptedError, match=f"^{expected}$"):
        run_corners(digits, digits, 1, tmp_path, 0, torch.device("cpu"))


def test_models_trained_side_by_side_are_those_trained_one_after_the_other(
    digits, tmp_path, threads, capsys
):
    for name, count in (("in turn", 1), ("beside", 2)):
        threads(count)
        run_corners(digits, digits, 3, tmp_path / name, 0, torch.device("cpu"))
        assert torch.get_num_threads() == count
        printed = capsys.readouterr().out
        for method in ("recursive", "l2", "independent"):
            for step in (1, 2, 3):
                assert f"{method} step {step}: " in printed
    in_turn, beside = tmp_path / "in turn", tmp_path / "beside"
    assert (beside / "corners.json").read_bytes() == (in_turn / "corners.json").read_bytes()
    for method in ("recursive", "l2", "independent"):
        one, other = (
            load_file(folder / method / "checkpoint.safetensors") for folder in (in_turn, beside)
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_experiment_writes_its_results_and_trains_only_once(digits, tmp_path):
    testing = place_digits(strokes(6, seed=3), seed=1)

    def run(steps=4, seed=0):
        return run_corners(digits, testing, steps, tmp_path, seed, torch.device("cpu"))

    table = run()
    found = json.loads((tmp_path / "corners.json").read_text())
    assert list(found["shares"]) == ["l2", "independent", "argmax", "recursive", "truth"]
    assert found["shares"]["truth"]["single"]["mean"] == 1
    assert found["shares"]["truth"]["both corners"]["mean"] == 0
    assert (tmp_path / "corners.png").stat().st_size > 1000
    lines = table.read_text().splitlines()
    assert lines[0] == "| method | single | top left | bottom right | both corners |"
    assert len(lines) == 7
    trained = (tmp_path / "recursive" / "checkpoint.safetensors").stat().st_mtime_ns
    run()
    assert json.loads((tmp_path / "corners.json").read_text()) == found
    assert (tmp_path / "recursive" / "checkpoint.safetensors").stat().st_mtime_ns == trained
    for steps, seed in ((3, 0), (8, 0), (4, 1)):
        with pytest.raises(
            ValueError, match=f"cannot be resumed with {steps} steps and seed {seed}"
        ):
            run(steps, seed)
    assert json.loads((tmp_path / "corners.json").read_text()) == found
