"""The command line: one clear line with exit code 2 for every mistake, before any work is done."""

import os

import numpy as np

from prsr import Sampler


def mistakes(tmp_path, photos, model):
    """Arguments, and what the one line must say."""
    text, torn, empty = tmp_path / "text.png", tmp_path / "torn.png", tmp_path / "empty"
    text.write_text("hello")
    torn.write_bytes((photos / "a.png").read_bytes()[:100])
    empty.mkdir()
    (tmp_path / "file").write_text("")
    np.save(tmp_path / "none.npy", np.zeros((0, 3, 6, 6), np.uint8))
    np.save(tmp_path / "other.npy", np.zeros((2, 1, 6, 7), np.uint8))
    out, with_model = tmp_path / "out", ("--model", model)
    sample = ("sample", photos, "-o", out, *with_model)
    train = ("train", "--data", photos, "--preset", "tiny", "--steps", 1)
    return [
        (("sample", tmp_path / "nowhere.png", "-o", out), "no such image or folder"),
        (("sample", empty, "-o", out, *with_model), "no image in folder"),
        (("sample", text, "-o", out, *with_model), "cannot be read as an image"),
        (("sample", torn, "-o", out, *with_model), "cannot be read as an image"),
        (("sample", tmp_path / "none.npy", "-o", out, *with_model), "none.npy holds no images"),
        (
            ("sample", tmp_path / "other.npy", "-o", out, *with_model),
            "must hold images [N, 3, 6, 6], it holds [2, 1, 6, 7]",
        ),
        (
            ("sample", tmp_path / "other.npy", "--low-resolution", "-o", out, *with_model),
            "must hold images [N, 3, h, w], it holds [2, 1, 6, 7]",
        ),
        (("sample", "-o", out), "Missing argument"),
        (("sample", photos), "Missing option"),
        (("sample", photos, "-o", out, "--model", empty), "no config.json"),
        ((*sample, "--temperature", "-1"), "temperature must be finite and not negative"),
        ((*sample, "--temperature", "warm"), "not a valid float"),
        ((*sample, "--temperature", "nan"), "temperature must be finite"),
        ((*sample, "--samples", "0"), "samples"),
        ((*sample, "--seed", "-1"), "seed must be from 0"),
        ((*sample, "--resume"), "seed must be given"),
        ((*sample, "--engine", "warp"), "no engine 'warp'; there are: auto, "),
        ((*sample, "--engine", "torch", "--precision", "bf16"), "torch: it computes in fp32 only"),
        ((*sample, "--device", "warp"), "device 'warp' is not available"),
        ((*sample, "--device", "meta"), "device 'meta' is not available"),
        ((*sample, "--device", "cuda:99"), "device 'cuda:99' is not available"),
        (("sample", photos, "-o", tmp_path / "no" / "s.png", *with_model), "no folder"),
        (("sample", photos, "-o", tmp_path / "file", *with_model), "exists"),
        (("sample", photos, "-o", photos, *with_model), "would be replaced"),
        (("sample", photos / "a.png", "-o", photos / "a.png", *with_model), "would be replaced"),
        (("sample", photos, "-o", tmp_path / "s.avif", *with_model), "an image file (.bmp, "),
        (("demo", "-o", tmp_path / "demo.txt"), "must have an image suffix"),
        (("demo", "-o", tmp_path / "no" / "demo.png"), "no folder"),
        (("demo", "-o", empty), "must have an image suffix"),
        ((*sample[:2], "-o", "", *with_model), "a path must not be empty"),
        (("sample", "", "-o", out, *with_model), "a path must not be empty"),
        ((*train, "--out", ""), "a path must not be empty"),
        (("unknown",), "No such command"),
        ((*train, "--out", out, "--batch-size", 0), "batch_size must be from 1"),
        ((*train, "--out", tmp_path / "file"), "Not a directory"),
        ((*train, "--out", out, "--resume"), "nothing to resume"),
        ((*train, "--out", out, "--precision", "fp8"), "precision must be fp32 or bf16"),
        (("train", "--data", empty, "--out", out, "--steps", 1), "no image in folder"),
        (("train", "--data", text, "--out", out, "--steps", 1), "nor a readable .npy"),
        ((*train, "--out", out, "--seed", -1), "seed must be from 0"),
        ((*train, "--out", out, "--from", model), "--preset and --from exclude each other"),
        ((*train, "--out", out, "--from", ""), "--preset and --from exclude each other"),
        (
            ("train", "--data", photos, "--out", out, "--steps", 1, "--from", empty),
            "no config.json",
        ),
    ]


def test_every_mistake_is_one_line_and_exit_code_2(command, model, photos, tmp_path):
    cases = mistakes(tmp_path, photos, model)
    before = set(tmp_path.rglob("*"))
    for arguments, told in cases:
        code, _, errors = command(*arguments)
        assert code == 2, (arguments, errors)
        assert errors.startswith("prsr: "), (arguments, errors)
        assert errors.count("\n") == 1, (arguments, errors)
        assert told in errors, (arguments, errors)
    assert set(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    command, model, photos, tmp_path, monkeypatch
):
    # Said by os.access and not by a locked folder: the superuser may write to any.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr(Sampler, "sample", None)
    sheet = tmp_path / "sheet.png"
    for call in (("sample", photos, "-o", tmp_path, "--model", model), ("demo", "-o", sheet)):
        code, _, errors = command(*call)
        assert (code, errors) == (2, f"prsr: cannot write to the folder {tmp_path}\n")
