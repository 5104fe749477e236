"""The commands evaluate, experiment and figure: what they write, and clear lines for mistakes."""

import csv
import dataclasses
import json
import os
import sys
from importlib.metadata import version

import numpy as np
import pytest
import torch
from PIL import Image

import prsr
from prsr import PRSR, PRSRConfig, Sampler
from prsr.baselines import MODELS
from prsr.cli import main
from prsr.corners import place_digits

CONFIG = dataclasses.replace(
    PRSRConfig.preset("tiny"), levels=256, low_height=4, low_width=4, head_channels=3
)


@pytest.fixture
def command(monkeypatch, capsys):
    """Exit code, output and error output of ``prsr`` with these arguments."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["prsr", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def models(tmp_path):
    """A folder for each method."""
    torch.manual_seed(0)
    for method, model in MODELS.items():
        model(CONFIG).save_pretrained(tmp_path / method)
    return {method: tmp_path / method for method in MODELS}


@pytest.fixture
def data(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "data.npy", pixels)
    return tmp_path / "data.npy"


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
    assert float(nearest["consistency"]) == 0  # it looks among the very pictures
    about = json.loads((out / "table.json").read_text())["about"]
    assert about["samples"] == "2 of each picture, seed 1"
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
        MODELS[method](CONFIG).save_pretrained(tmp_path / name)
    others = [tmp_path / name for name in ("other", "another", "more")]
    code, _, _ = command(
        *("evaluate", "--data", data, "--model", models["recursive"], "--out", tmp_path / "out"),
        *("--baselines", models["l2"], *others, "--pictures", 3),
    )
    assert code == 0
    found = json.loads((tmp_path / "out" / "table.json").read_text())
    assert found["about"]["pictures"] == f"3 of {data}"
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
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(picture)
    code, printed, _ = command(
        "sample", picture, "-o", tmp_path / "sheet.png", "--model", tmp_path / "run" / "model"
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
        *("figure", name, "--data", data, "--model", models["recursive"], "--pictures", 2),
        *(*FIGURES[name], "--out", out),
    )
    assert (code, errors) == (0, "")
    assert "wrote" in printed
    with Image.open(out) as picture:
        assert min(picture.size) > 100


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

    monkeypatch.setattr("prsr.experiments.run_corners", run)
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


def mistakes(models, data, tmp_path):
    """Arguments, and what the line must say."""
    ours = ("--data", data, "--model", models["recursive"])
    small = tmp_path / "small"
    PRSR(PRSRConfig.preset("tiny")).save_pretrained(small)
    PRSR(PRSRConfig.preset("tiny")).save_pretrained(tmp_path / "run" / "model")
    np.save(tmp_path / "small.npy", np.zeros((3, 3, 6, 6), np.uint8))
    np.save(tmp_path / "one.npy", np.load(data)[:1])
    np.save(tmp_path / "digits.npy", np.ones((3, 1, 28, 28), np.uint8))
    np.save(tmp_path / "digit.npy", np.ones((1, 1, 28, 28), np.uint8))
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    l2 = ("--data", data, "--model", models["l2"])
    corners = ("experiment", "corners", "--data", tmp_path / "digits.npy", "--steps", 1, "--test")
    into = ("--out", tmp_path / "out")
    return {
        "nearest": (("evaluate", *ours, "--baselines", "nearest"), "needs --training-data"),
        "other sizes": (("evaluate", *ours, "--baselines", small), "are (3, 8, 2, 3, 3), not"),
        "no model": (("evaluate", *ours, "--baselines", tmp_path / "none"), "no folder"),
        "no baseline": (
            ("evaluate", *ours, "--baselines", "bicubic", "biccubic"),
            "baselines must be bicubic, nearest, or models: 'biccubic' is no bundled model",
        ),
        "twice": (
            ("evaluate", *ours, "--baselines", "bicubic", "bicubic"),
            f"must be different ones, got bicubic, bicubic, {models['recursive']}",
        ),
        "its own baseline": (
            ("evaluate", *ours, "--baselines", models["recursive"]),
            "model and baselines must be different ones",
        ),
        "a run": (
            ("evaluate", *ours, "--baselines", tmp_path / "run"),
            f"{tmp_path / 'run'} is the folder of a run; its model is {tmp_path / 'run/model'}",
        ),
        "temperature": (
            ("evaluate", *ours, "--temperature", 1, -1),
            "'--temperature': temperature must be finite and not negative, got -1.0",
        ),
        "infinite": (("evaluate", *ours, "--temperature", 1, "inf"), "temperature must be finite"),
        "cold l2": (
            ("figure", "samples", *l2, "--temperature", -1),
            "'--temperature': temperature must be finite and not negative, got -1.0",
        ),
        "no number": (
            ("figure", "temperatures", *l2, "--temperature", 1, "nan"),
            "'--temperature': temperature must be finite and not negative, got nan",
        ),
        "seed": (("evaluate", *ours, "--seed", -1), "'--seed': seed must be from 0 to"),
        "seed of l2": (("evaluate", *l2, "--seed", -1), "'--seed': seed must be from 0 to"),
        "seed of a figure": (("figure", "growth", *ours, "--seed", 2**64), "seed must be from 0"),
        "seed of corners": (
            (*corners, tmp_path / "digits.npy", *into, "--seed", -1),
            f"'--seed': seed must be from 0 to {2**63 - 1}, got -1",
        ),
        "large seed": (
            (*corners, tmp_path / "digits.npy", *into, "--seed", 2**63),
            f"seed must be from 0 to {2**63 - 1}, got {2**63}",
        ),
        "one digit": (
            (*corners, tmp_path / "digit.npy", *into),
            "testing must hold two digits at least, got 1",
        ),
        "a file": (
            ("evaluate", *ours, "--out", tmp_path / "file"),
            "'--out': {0} must be a folder or a new name, but {0} is a file".format(
                tmp_path / "file"
            ),
        ),
        "below a file": (
            (*corners, tmp_path / "digits.npy", "--out", tmp_path / "file" / "out"),
            f"{tmp_path / 'file'} is a file",
        ),
        "a folder": (
            ("figure", "curves", tmp_path, "-o", tmp_path / "folder.png"),
            f"'--out': {tmp_path / 'folder.png'} is a folder",
        ),
        "one picture": (
            ("evaluate", "--data", tmp_path / "one.npy", "--model", models["recursive"]),
            "two pictures at least",
        ),
        "one of them": (("evaluate", *ours, "--pictures", 1), "two pictures at least"),
        "too small": (
            ("evaluate", "--data", tmp_path / "small.npy", "--model", small),
            "at least 7 pixels",
        ),
        "no growth": (
            ("figure", "growth", "--data", data, "--model", models["l2"]),
            "of the method l2",
        ),
        "format": (("figure", "samples", *ours, "-o", tmp_path / "a.txt"), "must end in one of"),
        "no folder": (
            ("figure", "samples", *ours, "-o", tmp_path / "out" / "a.png"),
            "no folder",
        ),
        "no run": (("figure", "curves", tmp_path, "-o", tmp_path / "a.png"), "no event files"),
        "no digits": (
            ("experiment", "corners", "--data", data, "--test", data, "--out", tmp_path / "out"),
            "[N, 1, 28, 28]",
        ),
        "method": (
            ("train", "--data", data, "--steps", 1, "--out", tmp_path / "out", "--method", "l1"),
            "'l1' is not one of",
        ),
        "start": (
            (
                "train",
                "--data",
                data,
                "--steps",
                1,
                "--out",
                tmp_path / "o",
                "--from",
                models["l2"],
            ),
            "of the method l2, not recursive",
        ),
        "engine": (
            ("sample", data, "-o", tmp_path / "o", "--model", models["l2"], "--engine", "cpu"),
            "no prior network",
        ),
    }


def test_a_mistake_is_one_clear_line(command, models, data, tmp_path):
    for name, (arguments, message) in mistakes(models, data, tmp_path).items():
        if arguments[0] == "evaluate" and "--out" not in arguments:
            arguments = (*arguments, "--out", tmp_path / "out")
        code, _, errors = command(*arguments)
        assert (name, code) == (name, 2)
        assert message in errors
        assert len(errors.splitlines()) == 1, errors
        assert not (tmp_path / "out").exists(), name


def test_a_folder_that_cannot_be_written_is_told_of_before_the_work(
    command, models, data, tmp_path, monkeypatch
):
    # Said by os.access and not by a locked folder: the superuser may write to any.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr("prsr.options.open_model", None)
    ours = ("--data", data, "--model", models["recursive"])
    for call in (
        ("evaluate", *ours, "--out", tmp_path / "out"),
        ("experiment", "corners", "--data", data, "--test", data, "--out", tmp_path / "a" / "b"),
        ("figure", "samples", *ours, "--out", tmp_path / "a.png"),
        ("figure", "curves", tmp_path, "--out", tmp_path / "a.png"),
    ):
        code, _, errors = command(*call)
        assert code == 2
        assert errors.endswith(f"'--out': cannot write to the folder {tmp_path}\n")


def test_a_comparison_that_fails_leaves_no_folder(command, models, data, tmp_path, monkeypatch):
    monkeypatch.setattr(Sampler, "sample", None)
    code, _, _ = command(
        *("evaluate", "--data", data, "--model", models["recursive"], "--out", tmp_path / "out")
    )
    assert code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("matplotlib.figure", ("figure", "samples")),
        ("sklearn.neighbors", ("figure", "methods", "--baselines", "nearest")),
        ("torchmetrics.functional.image", ("evaluate",)),
    ],
)
def test_without_the_extra_the_line_says_how_to_get_it(
    module, arguments, command, models, data, tmp_path, monkeypatch
):
    for name in [name for name in sys.modules if name in ("prsr.figures", "prsr.metrics")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "prsr.comparison", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    code, _, errors = command(
        *(*arguments, "--data", data, "--model", models["recursive"], "--out", tmp_path / "a.png"),
        *(("--training-data", data) if "nearest" in arguments else ()),
    )
    assert code == 2
    assert "pip install 'prsr[evaluate]'" in errors
    assert len(errors.splitlines()) == 1
