"""The commands evaluate, experiment and figure: clear lines for mistakes, before any work."""

import sys
import tempfile

import numpy as np
import pytest

from prsr import PRSR, PRSRConfig, Sampler


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
        "nearest": (("evaluate", *ours, "--baseline", "nearest"), "needs --training-data"),
        "other sizes": (("evaluate", *ours, "--baseline", small), "are (3, 8, 2, 3, 3), not"),
        "no model": (("evaluate", *ours, "--baseline", tmp_path / "none"), "no folder"),
        "no baseline": (
            ("evaluate", *ours, "--baseline", "bicubic", "--baseline", "biccubic"),
            "baselines must be bicubic, nearest, or models: 'biccubic' is not a bundled model",
        ),
        "twice": (
            ("evaluate", *ours, "--baseline", "bicubic", "--baseline", "bicubic"),
            f"must be different ones, got bicubic, bicubic, {models['recursive']}",
        ),
        "its own baseline": (
            ("evaluate", *ours, "--baseline", models["recursive"]),
            "model and baselines must be different ones",
        ),
        "a run": (
            ("evaluate", *ours, "--baseline", tmp_path / "run"),
            f"{tmp_path / 'run'} is the folder of a run; its model is {tmp_path / 'run/model'}",
        ),
        "temperature": (
            ("evaluate", *ours, "--temperature", 1, "--temperature", -1),
            "'--temperature': temperature must be finite and not negative, got -1.0",
        ),
        "infinite": (
            ("evaluate", *ours, "--temperature", 1, "--temperature", "inf"),
            "temperature must be finite",
        ),
        "cold l2": (
            ("figure", "samples", *l2, "--temperature", -1),
            "'--temperature': temperature must be finite and not negative, got -1.0",
        ),
        "no number": (
            ("figure", "temperatures", *l2, "--temperature", 1, "--temperature", "nan"),
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
            "testing must have at least two digits, got 1",
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
        "one image": (
            ("evaluate", "--data", tmp_path / "one.npy", "--model", models["recursive"]),
            "at least two images",
        ),
        "one of them": (("evaluate", *ours, "--images", 1), "at least two images"),
        "too small": (
            ("evaluate", "--data", tmp_path / "small.npy", "--model", small),
            "at least 7 pixels",
        ),
        "no growth": (
            ("figure", "growth", "--data", data, "--model", models["l2"]),
            "of the method l2, which does not sample row by row",
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
    # Said by the trial and not by a locked folder: the superuser may write to any.
    def refused(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    monkeypatch.setattr("prsr.cli.options.open_model", None)
    ours = ("--data", data, "--model", models["recursive"])
    for call in (
        ("evaluate", *ours, "--out", tmp_path / "out"),
        ("experiment", "corners", "--data", data, "--test", data, "--out", tmp_path / "a" / "b"),
        ("figure", "samples", *ours, "--out", tmp_path / "a.png"),
        ("figure", "curves", tmp_path, "--out", tmp_path / "a.png"),
    ):
        code, _, errors = command(*call)
        assert code == 2
        assert errors.endswith(
            f"'--out': cannot write to the folder {tmp_path}: Permission denied\n"
        )


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
        ("sklearn.neighbors", ("figure", "methods", "--baseline", "nearest")),
        ("torchmetrics.functional.image", ("evaluate",)),
    ],
)
def test_without_the_extra_the_line_says_how_to_get_it(
    module, arguments, command, models, data, tmp_path, monkeypatch
):
    for name in [
        name for name in sys.modules if name in ("prsr.evaluation.plots", "prsr.evaluation.metrics")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "prsr.evaluation.compare", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    code, _, errors = command(
        *(*arguments, "--data", data, "--model", models["recursive"], "--out", tmp_path / "a.png"),
        *(("--training-data", data) if "nearest" in arguments else ()),
    )
    assert code == 2
    assert "pip install 'prsr[evaluate]'" in errors
    assert len(errors.splitlines()) == 1
