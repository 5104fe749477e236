"""``prsr evaluate``, ``experiment`` and ``figure``: one-line errors, before any work.

The line must name the wrong option or file; the test does not fix the rest of its wording.
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
    "nearest without training data": (
        f"evaluate {OURS} --out {{out}} --baseline nearest",
        "--training-data",
    ),
    "baseline of another size": (
        f"evaluate {OURS} --out {{out}} --baseline {{small}}",
        "(3, 8, 2, 3, 3)",
    ),
    "baseline without a model": (
        f"evaluate {OURS} --out {{out}} --baseline {{tmp}}/none",
        "{tmp}/none",
    ),
    "unknown baseline": (
        f"evaluate {OURS} --out {{out}} --baseline bicubic --baseline biccubic",
        "'biccubic'",
    ),
    "baseline given twice": (
        f"evaluate {OURS} --out {{out}} --baseline bicubic --baseline bicubic",
        "bicubic, bicubic",
    ),
    "model as its own baseline": (
        f"evaluate {OURS} --out {{out}} --baseline {{recursive}}",
        "baselines",
    ),
    "folder of a run as baseline": (
        f"evaluate {OURS} --out {{out}} --baseline {{tmp}}/run",
        "{tmp}/run/model",
    ),
    "negative temperature": (
        f"evaluate {OURS} --out {{out}} --temperature 1 --temperature -1",
        "--temperature",
    ),
    "infinite temperature": (
        f"evaluate {OURS} --out {{out}} --temperature 1 --temperature inf",
        "--temperature",
    ),
    "negative temperature of l2": (f"figure samples {L2} --temperature -1", "--temperature"),
    "temperature NaN": (
        f"figure temperatures {L2} --temperature 1 --temperature nan",
        "--temperature",
    ),
    "negative seed": (f"evaluate {OURS} --out {{out}} --seed -1", "--seed"),
    "negative seed of l2": (f"evaluate {L2} --out {{out}} --seed -1", "--seed"),
    "large seed of a figure": (f"figure growth {OURS} --seed {2**64}", "--seed"),
    "negative seed of corners": (
        f"{CORNERS} --test {{tmp}}/digits.npy --out {{out}} --seed -1",
        "--seed",
    ),
    "large seed of corners": (
        f"{CORNERS} --test {{tmp}}/digits.npy --out {{out}} --seed {2**63}",
        "--seed",
    ),
    "one digit": (f"{CORNERS} --test {{tmp}}/digit.npy --out {{out}}", "two"),
    "output that is a file": (f"evaluate {OURS} --out {{tmp}}/file", "--out"),
    "output below a file": (
        f"{CORNERS} --test {{tmp}}/digits.npy --out {{tmp}}/file/out",
        "{tmp}/file",
    ),
    "output that is a folder": ("figure curves {tmp} -o {tmp}/folder.png", "--out"),
    "one image": ("evaluate --data {tmp}/one.npy --model {recursive} --out {out}", "two"),
    "one image of several": (f"evaluate {OURS} --out {{out}} --images 1", "two"),
    "images too small for metrics": (
        "evaluate --data {tmp}/small.npy --model {small} --out {out}",
        "7",
    ),
    "growth of l2": (f"figure growth {L2}", "l2"),
    "unknown output format": (f"figure samples {OURS} -o {{tmp}}/a.txt", "--out"),
    "output in no folder": (f"figure samples {OURS} -o {{out}}/a.png", "{out}"),
    "folder without a run": ("figure curves {tmp} -o {tmp}/a.png", "{tmp}"),
    "images that are not digits": (
        "experiment corners --data {data} --test {data} --out {out}",
        "[N, 1, 28, 28]",
    ),
    "unknown method": ("train --data {data} --steps 1 --out {out} --method l1", "--method"),
    "start from another method": ("train --data {data} --steps 1 --out {out} --from {l2}", "l2"),
    "engine of a method without a prior": (
        "sample {data} -o {out} --model {l2} --engine cpu",
        "prior",
    ),
}
"""A command, and what its error must contain."""


@pytest.fixture
def places(tmp_path, models, data):
    """Create the files of ``CASES``; their paths by the names that it uses."""
    PRSR(PRSRConfig.preset("tiny")).save_pretrained(tmp_path / "small")
    PRSR(PRSRConfig.preset("tiny")).save_pretrained(tmp_path / "run" / "model")
    np.save(tmp_path / "small.npy", np.zeros((3, 3, 6, 6), np.uint8))
    np.save(tmp_path / "one.npy", np.load(data)[:1])
    np.save(tmp_path / "digits.npy", np.ones((3, 1, 28, 28), np.uint8))
    np.save(tmp_path / "digit.npy", np.ones((1, 1, 28, 28), np.uint8))
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    paths = {"data": data, "out": tmp_path / "out", "small": tmp_path / "small"}
    return {"tmp": tmp_path} | paths | models


@pytest.mark.parametrize("name", CASES)
def test_an_invalid_command_gives_one_line_and_exit_code_2(command, places, name):
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
def test_an_unwritable_folder_is_reported_before_the_work(command, places, monkeypatch, call):
    # A read-only folder would not do: the superuser may write to it.
    def refused(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    monkeypatch.setattr("prsr.cli.options.open_model", None)
    code, _, errors = command(*shlex.split(call.format(**places)))
    assert code == 2
    assert "--out" in errors
    assert errors.endswith(f"{places['tmp']}: Permission denied\n")


def test_a_failed_comparison_leaves_no_folder(command, models, data, tmp_path, monkeypatch):
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
def test_a_missing_extra_is_reported_with_the_remedy(
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
