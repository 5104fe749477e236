"""The commands evaluate, experiment and figure: what they take, and what they write."""

import csv
import json
import shutil
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image

import prsr
from prsr.experiments.corner_digits import place_digits
from prsr.models.registry import MODELS


def test_evaluate_takes_lists_and_saves_its_tables(command, models, data, tmp_path):
    out = tmp_path / "tables"
    code, printed, errors = command(
        *("evaluate", "--temperature", 1.0, 0.5, "--data", data, "--model", models["recursive"]),
        *("--baselines", "bicubic", "nearest", models["l2"], models["independent"]),
        *("--training-data", data, "--seed", 1, "--out", out),
    )
    assert (code, errors) == (0, "")
    assert (out / "table.md").read_text() in printed
    with (out / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = list(dict.fromkeys((line["method"], line["temperature"]) for line in lines[:-6]))
    assert rows[:7] == [
        ("bicubic", ""),
        ("nearest", ""),
        ("l2", ""),
        ("independent", "1.0"),
        ("independent", "0.5"),
        ("independent", "0.0"),
        ("recursive", "1.0"),
    ]
    nearest = {line["measure"]: line["mean"] for line in lines if line["method"] == "nearest"}
    assert float(nearest["consistency"]) == 0  # it looks among the very images
    about = json.loads((out / "table.json").read_text())["about"]
    assert about["samples"] == "2 of each image, seed 1"
    assert about["model"] == str(models["recursive"])
    assert about["baselines"] == f"bicubic, nearest, {models['l2']}, {models['independent']}"
    assert about["training data"] == str(data)
    assert about["device"].startswith("cpu: ")
    assert about["versions"] == f"prsr {prsr.__version__}, torch {version('torch')}"
    notes = (out / "table.md").read_text()
    for heading, fact in about.items():
        assert f"- {heading}: {fact}\n" in notes


def test_options_may_be_repeated_instead(command, models, data, tmp_path):
    arguments = ("evaluate", "--data", data, "--model", models["recursive"])
    command(*arguments, "--temperature", 1, 0.5, "--out", tmp_path / "a")
    command(*arguments, "--temperature=1", "--temperature", 0.5, "--out", tmp_path / "b")
    assert (tmp_path / "a/table.csv").read_text() == (tmp_path / "b/table.csv").read_text()


def test_the_seed_decides_what_is_drawn(command, models, data, tmp_path):
    def table(out, seed):
        command(
            *("evaluate", "--data", data, "--model", models["recursive"]),
            *("--seed", seed, "--out", tmp_path / out),
        )
        return (tmp_path / out / "table.csv").read_text()

    assert table("a", 3) == table("b", 3)
    assert table("c", 4) != table("a", 3)


def test_two_models_of_one_method_are_told_apart(command, models, data, tmp_path):
    for name, method in (("other", "recursive"), ("another", "recursive"), ("more", "l2")):
        shutil.copytree(models[method], tmp_path / name)
    others = [tmp_path / name for name in ("other", "another", "more")]
    code, _, _ = command(
        *("evaluate", "--data", data, "--model", models["recursive"], "--out", tmp_path / "out"),
        *("--baselines", models["l2"], *others, "--images", 3),
    )
    assert code == 0
    found = json.loads((tmp_path / "out" / "table.json").read_text())
    assert found["about"]["images"] == f"3 of {data}"
    labels = [f"recursive ({others[0]})", f"recursive ({others[1]})", f"l2 ({others[2]})"]
    assert list(found["parameters"]) == ["l2", *labels, "recursive"]
    assert "training data" not in found["about"]


@pytest.mark.parametrize("method", sorted(MODELS))
def test_every_method_is_trained_and_sampled_by_the_same_commands(method, command, data, tmp_path):
    np.save(tmp_path / "six.npy", np.zeros((4, 3, 6, 6), np.uint8))
    code, _, errors = command(
        *("train", "--method", method, "--preset", "tiny", "--data", tmp_path / "six.npy"),
        *("--steps", 1, "--batch-size", 2, "--out", tmp_path / "run", "--device", "cpu"),
    )
    assert (code, errors) == (0, "")
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(image)
    code, printed, _ = command(
        "sample", image, "-o", tmp_path / "sheet.png", "--model", tmp_path / "run" / "model"
    )
    assert code == 0
    assert (tmp_path / "sheet.png").is_file()
    assert (method if method in ("l2", "independent") else "engine cpu") in printed


FIGURES = {
    "methods": ("--baselines", "bicubic"),
    "temperatures": ("--temperature", 1, 0),
    "samples": ("--samples", 2),
    "growth": (),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_one_command(name, command, models, data, tmp_path):
    out = tmp_path / ("figure.gif" if name == "growth" else "figure.png")
    code, printed, errors = command(
        *("figure", name, "--data", data, "--model", models["recursive"], "--images", 2),
        *(*FIGURES[name], "--out", out),
    )
    assert (code, errors) == (0, "")
    assert "wrote" in printed
    with Image.open(out) as image:
        assert min(image.size) > 100


def test_curves_are_one_command(command, data, tmp_path):
    np.save(tmp_path / "six.npy", np.zeros((4, 3, 6, 6), np.uint8))
    command(
        *("train", "--preset", "tiny", "--data", tmp_path / "six.npy", "--device", "cpu"),
        *("--steps", 2, "--batch-size", 2, "--out", tmp_path / "run"),
    )
    code, _, errors = command("figure", "curves", tmp_path / "run", "-o", tmp_path / "curves.png")
    assert (code, errors) == (0, "")
    assert (tmp_path / "curves.png").is_file()


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


@pytest.mark.parametrize("name", ["sample", "train", "evaluate", "figure", "experiment"])
def test_help_shows_examples_as_they_are_typed(name, command):
    code, printed, _ = command(name, "--help")
    assert code == 0
    assert "\\b" not in printed
    if name in ("sample", "train", "evaluate"):
        assert f"\n  prsr {name} " in printed
