"""``prsr evaluate``, ``experiment`` and ``figure``: one line for each mistake, before any work.

The line must name the option or the file that is wrong; the rest of its words is free.
"""

import shlex
import sys
import tempfile

import numpy as np
import pytest

from prsr import PRSR, PRSRConfig, Sampler

OURS = "--data {data} --model {recursive}"
L2 = "--data {data} --model {l2}"
CORNERS = "experiment corners --data {tmp}/digits.npy --steps 1"
CASES = {
    "nearest": (f"evaluate {OURS} --out {{out}} --baseline nearest", "--training-data"),
    "other sizes": (f"evaluate {OURS} --out {{out}} --baseline {{small}}", "(3, 8, 2, 3, 3)"),
    "no model": (f"evaluate {OURS} --out {{out}} --baseline {{tmp}}/none", "{tmp}/none"),
    "no baseline": (
        f"evaluate {OURS} --out {{out}} --baseline bicubic --baseline biccubic",
        "'biccubic'",
    ),
    "twice": (
        f"evaluate {OURS} --out {{out}} --baseline bicubic --baseline bicubic",
        "bicubic, bicubic",
    ),
    "its own baseline": (f"evaluate {OURS} --out {{out}} --baseline {{recursive}}", "baselines"),
    "a run": (f"evaluate {OURS} --out {{out}} --baseline {{tmp}}/run", "{tmp}/run/model"),
    "temperature": (
        f"evaluate {OURS} --out {{out}} --temperature 1 --temperature -1",
        "--temperature",
    ),
    "infinite": (
        f"evaluate {OURS} --out {{out}} --temperature 1 --temperature inf",
        "--temperature",
    ),
    "negative temperature of l2": (f"figure samples {L2} --temperature -1", "--temperature"),
    "no number": (f"figure temperatures {L2} --temperature 1 --temperature nan", "--temperature"),
    "seed": (f"evaluate {OURS} --out {{out}} --seed -1", "--seed"),
    "seed of l2": (f"evaluate {L2} --out {{out}} --seed -1", "--seed"),
    "seed of a figure": (f"figure growth {OURS} --seed {2**64}", "--seed"),
    "seed of corners": (f"{CORNERS} --test {{tmp}}/digits.npy --out {{out}} --seed -1", "--seed"),
    "large seed": (f"{CORNERS} --test {{tmp}}/digits.npy --out {{out}} --seed {2**63}", "--seed"),
    "one digit": (f"{CORNERS} --test {{tmp}}/digit.npy --out {{out}}", "two"),
    "a file": (f"evaluate {OURS} --out {{tmp}}/file", "--out"),
    "below a file": (f"{CORNERS} --test {{tmp}}/digits.npy --out {{tmp}}/file/out", "{tmp}/file"),
    "a folder": ("figure curves {tmp} -o {tmp}/folder.png", "--out"),
    "one image": ("evaluate --data {tmp}/one.npy --model {recursive} --out {out}", "two"),
    "one of them": (f"evaluate {OURS} --out {{out}} --images 1", "two"),
    "too small": ("evaluate --data {tmp}/small.npy --model {small} --out {out}", "7"),
    "no growth": (f"figure growth {L2}", "l2"),
    "format": (f"figure samples {OURS} -o {{tmp}}/a.txt", "--out"),
    "no folder": (f"figure samples {OURS} -o {{out}}/a.png", "{out}"),
    "no run": ("figure curves {tmp} -o {tmp}/a.png", "{tmp}"),
    "no digits": ("experiment corners --data {data} --test {data} --out {out}", "[N, 1, 28, 28]"),
    "method": ("train --data {data} --steps 1 --out {out} --method l1", "--method"),
    "start": ("train --data {data} --steps 1 --out {out} --from {l2}", "l2"),
    "engine": ("sample {data} -o {out} --model {l2} --engine cpu", "prior"),
}
"""A command, and what its error must contain."""


@pytest.fixture
def places(tmp_path, models, data):
    """Paths by the names that ``CASES`` has for them, with the files behind them."""
    PRSR(PRSRConfig.preset("tiny")).save_pretrained(tmp_path / "small")
    PRSR(PRSRConfig.preset("tiny")).save_pretrained(tmp_path / "run" / "model")
    np.save(tmp_path / "small.npy", np.zeros((3, 3, 6, 6), np.uint8))
    np.save(tmp_path / "one.npy", np.load(data)[:1])
    np.save(tmp_path / "digits.npy", np.ones((3, 1, 28, 28), np.uint8))
    np.save(tmp_path / "digit.npy", np.ones((1, 1, 28, 28), np.uint8))
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    made = {"data": data, "out": tmp_path / "out", "small": tmp_path / "small"}
    return {"tmp": tmp_path} | made | models


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_one_line_and_exit_code_2(command, places, name):
    arguments, named = (part.format(**places) for part in CASES[name])
    before = set(places["tmp"].rglob("*"))
    code, _, errors = command(*shlex.split(arguments))
    assert code == 2
    assert errors.startswith("prsr: ")
    assert errors.count("\n") == 1
    assert named in errors
    assert set(places["tmp"].rglob("*")) == before


@pytest.mark.parametrize(
    "call",
    [
        f"evaluate {OURS} --out {{tmp}}/out",
        "experiment corners --data {data} --test {data} --out {tmp}/a/b",
        f"figure samples {OURS} --out {{tmp}}/a.png",
        "figure curves {tmp} --out {tmp}/a.png",
    ],
)
def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    command, places, monkeypatch, call
):
    # By the trial and not by a locked folder: the superuser may write to any.
    def refused(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    monkeypatch.setattr("prsr.cli.options.open_model", None)
    code, _, errors = command(*shlex.split(call.format(**places)))
    assert code == 2
    assert "--out" in errors
    assert errors.endswith(f"{places['tmp']}: Permission denied\n")


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
