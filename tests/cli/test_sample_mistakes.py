"""``prsr sample``, ``demo`` and ``train``: one-line errors, before any work.

The line must name the wrong option or file; the test does not fix the rest of its wording.
"""

import os
import shlex

import numpy as np
import pytest

from prsr import Sampler

SAMPLE = "sample {photos} -o {out} --model {model}"
TRAIN = "train --data {photos} --preset tiny --steps 1"
CASES = {
    "no such image": ("sample {tmp}/nowhere.png -o {out}", "nowhere.png"),
    "empty folder": ("sample {empty} -o {out} --model {model}", "{empty}"),
    "text as an image": ("sample {text} -o {out} --model {model}", "text.png"),
    "torn image": ("sample {tmp}/torn.png -o {out} --model {model}", "torn.png"),
    "array without images": ("sample {tmp}/none.npy -o {out} --model {model}", "none.npy"),
    "array of another shape": (
        "sample {tmp}/other.npy -o {out} --model {model}",
        "[2, 1, 6, 7]",
    ),
    "low-resolution array of another shape": (
        "sample {tmp}/other.npy --low-resolution -o {out} --model {model}",
        "[2, 1, 6, 7]",
    ),
    "no input": ("sample -o {out}", "IMAGES"),
    "no output": ("sample {photos}", "--out"),
    "folder without a model": ("sample {photos} -o {out} --model {empty}", "config.json"),
    "negative temperature": (f"{SAMPLE} --temperature -1", "temperature"),
    "temperature that is not a number": (f"{SAMPLE} --temperature warm", "--temperature"),
    "temperature NaN": (f"{SAMPLE} --temperature nan", "temperature"),
    "no samples": (f"{SAMPLE} --samples 0", "--samples"),
    "negative seed": (f"{SAMPLE} --seed -1", "seed"),
    "resumed without a seed": (f"{SAMPLE} --resume", "seed"),
    "unknown engine": (f"{SAMPLE} --engine warp", "engine 'warp'"),
    "precision that the engine lacks": (f"{SAMPLE} --engine torch --precision bf16", "torch: "),
    "unknown device": (f"{SAMPLE} --device warp", "device 'warp'"),
    "device meta": (f"{SAMPLE} --device meta", "device 'meta'"),
    "device that is not here": (f"{SAMPLE} --device cuda:99", "device 'cuda:99'"),
    "output in no folder": ("sample {photos} -o {tmp}/no/s.png --model {model}", "{tmp}/no"),
    "output that is a file": ("sample {photos} -o {tmp}/file --model {model}", "{tmp}/file"),
    "output over the inputs": ("sample {photos} -o {photos} --model {model}", "a.png"),
    "output over the input": ("sample {photos}/a.png -o {photos}/a.png --model {model}", "a.png"),
    "output of another format": ("sample {photos} -o {tmp}/s.avif --model {model}", ".bmp, "),
    "demo of another format": ("demo -o {tmp}/demo.txt", "demo.txt"),
    "demo in no folder": ("demo -o {tmp}/no/demo.png", "{tmp}/no"),
    "demo over a folder": ("demo -o {empty}", "{empty}"),
    "empty output": ("sample {photos} -o '' --model {model}", "--out"),
    "empty input": ("sample '' -o {out} --model {model}", "IMAGES"),
    "empty output of a training": (f"{TRAIN} --out ''", "--out"),
    "unknown command": ("unknown", "unknown"),
    "no batch": (f"{TRAIN} --out {{out}} --batch-size 0", "batch_size"),
    "training into a file": (f"{TRAIN} --out {{tmp}}/file", "{tmp}/file"),
    "nothing to resume": (f"{TRAIN} --out {{out}} --resume", "{out}"),
    "unknown precision": (f"{TRAIN} --out {{out}} --precision fp8", "precision"),
    "training on an empty folder": ("train --data {empty} --out {out} --steps 1", "{empty}"),
    "training on text": ("train --data {text} --out {out} --steps 1", "text.png"),
    "negative seed of a training": (f"{TRAIN} --out {{out}} --seed -1", "seed"),
    "preset and model": (f"{TRAIN} --out {{out}} --from {{model}}", "--preset and --from"),
    "preset and empty model": (f"{TRAIN} --out {{out}} --from ''", "--preset and --from"),
    "start without a model": (
        "train --data {photos} --out {out} --steps 1 --from {empty}",
        "config.json",
    ),
}
"""A command, and what its error must contain."""


@pytest.fixture
def places(tmp_path, photos, model):
    """Create the files of ``CASES``; their paths by the names that it uses."""
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "torn.png").write_bytes((photos / "a.png").read_bytes()[:100])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    np.save(tmp_path / "none.npy", np.zeros((0, 3, 6, 6), np.uint8))
    np.save(tmp_path / "other.npy", np.zeros((2, 1, 6, 7), np.uint8))
    paths = {name: tmp_path / name for name in ("out", "empty")}
    return {
        "tmp": tmp_path,
        "photos": photos,
        "model": model,
        "text": tmp_path / "text.png",
    } | paths


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
    "call", ["sample {photos} -o {tmp} --model {model}", "demo -o {tmp}/a.png"]
)
def test_an_unwritable_folder_is_reported_before_the_work(command, places, monkeypatch, call):
    # A read-only folder would not do: the superuser may write to it.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr(Sampler, "sample", None)
    code, _, errors = command(*shlex.split(call.format(**places)))
    assert code == 2
    assert str(places["tmp"]) in errors
    assert errors.count("\n") == 1
