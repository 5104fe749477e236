"""``prsr sample`` and ``prsr demo``: the files that they write and the samples in them."""

import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from prsr import PRSR, PRSRConfig, Sampler
from prsr.data.image_arrays import reduce, to_pil
from prsr.data.write_images import save_image
from prsr.models.model_files import bundled_models
from prsr.sampling import sampler

TINY = PRSRConfig.preset("tiny")


def pixels(path):
    return np.asarray(Image.open(path))


def test_sampling_a_folder_writes_files_and_a_contact_sheet(command, model, photos, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = command("sample", photos, "-o", out, "--model", model, "--seed", 3)
    assert code == 0
    assert {path.name for path in out.iterdir()} == {
        "a.png",
        "b.png",
        "a~2.png",
        "contact-sheet.png",
    }
    assert pixels(out / "a.png").shape == (6, 6, 3)
    assert str(out / "contact-sheet.png") in printed.replace("\n", "")
    assert "seed 3" in printed


@pytest.mark.parametrize("chunk", [1, 64])
def test_the_files_hold_the_samples_of_the_sampler(
    command, model, photos, tmp_path, monkeypatch, chunk
):
    monkeypatch.setattr("prsr.cli.sample_files.CHUNK", chunk)
    command("sample", photos, "-o", tmp_path / "out", "--model", model, "--seed", 3, "--samples", 2)
    from prsr.data.find_files import find_images
    from prsr.data.image_arrays import high_resolution, read_image

    hr = np.stack([high_resolution(read_image(p, TINY), TINY) for p in find_images([photos])])
    drawn = Sampler(PRSR.from_pretrained(model)).sample(reduce(hr, TINY), seed=3, num_samples=2)
    for stem, samples in zip(("a", "b", "a~2"), drawn.numpy(), strict=True):
        for number, sample in enumerate(samples, start=1):
            expected = np.asarray(to_pil(sample, TINY))
            assert np.array_equal(pixels(tmp_path / "out" / f"{stem}_{number}.png"), expected)


def test_chunks_and_the_order_of_sizes_do_not_change_the_samples(
    command, model, photos, tmp_path, monkeypatch
):
    arguments = ("--model", model, "--seed", 5, "--low-resolution")
    command("sample", photos, "-o", tmp_path / "one", *arguments)
    monkeypatch.setattr("prsr.cli.sample_files.CHUNK", 1)
    command("sample", photos, "-o", tmp_path / "two", *arguments)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    shapes = {path.name: pixels(path).shape for path in (tmp_path / "one").glob("[ab]*")}
    assert shapes == {"a.png": (32, 40, 3), "b.png": (24, 24, 3), "a~2.png": (14, 18, 3)}


def test_resuming_samples_only_the_missing_files(command, model, photos, tmp_path, monkeypatch):
    arguments = ("sample", photos, "--model", model, "--seed", 5, "--samples", 2)
    command(*arguments, "-o", tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert len(names) == 3 * 2 + 1
    written = []
    monkeypatch.setattr(
        "prsr.cli.sample_files.save_image",
        lambda image, path, *about: written.append(path.name) or save_image(image, path, *about),
    )
    for missing in (["b_1.png", "b_2.png"], ["a_2.png", "a~2_1.png"], names[1:], []):
        out = tmp_path / "-".join(["cut", *missing])
        shutil.copytree(tmp_path / "whole", out)
        for name in [*missing, "contact-sheet.png"]:
            (out / name).unlink(missing_ok=True)
        written.clear()
        code, _, errors = command(*arguments, "-o", out, "--resume")
        assert (code, errors) == (0, "")
        assert sorted(written) == sorted({*missing, "contact-sheet.png"})
        for name in names:
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_each_image_of_an_array_file_is_enlarged(command, model, photos, tmp_path):
    rng, out = np.random.default_rng(0), tmp_path / "out"
    large = rng.integers(0, 8, (11, 3, 6, 6), dtype=np.uint8)
    small = rng.integers(0, 8, (2, 3, 2, 5), dtype=np.uint8)
    np.save(tmp_path / "large.npy", large)
    np.save(tmp_path / "small.npy", small)
    request = ("sample", "--model", model, "--seed", 4, "-o", out)
    assert command(*request, tmp_path / "large.npy", photos / "a.png")[0] == 0
    assert command(*request, tmp_path / "small.npy", "--low-resolution")[0] == 0
    names = [f"large-{i:02}.png" for i in range(11)] + ["a.png", "small-0.png", "small-1.png"]
    assert {path.name for path in out.iterdir()} == {*names, "contact-sheet.png"}
    loaded = PRSR.from_pretrained(model)
    for low, drawn in ((reduce(large, loaded.config), names[:11]), (small, names[-2:])):
        for image, name in zip(Sampler(loaded).sample(low, seed=4), drawn, strict=True):
            expected = to_pil(image.numpy(), loaded.config)
            assert np.array_equal(pixels(out / name), np.asarray(expected))


def test_for_a_contact_sheet_only_the_images_that_it_shows_are_sampled(
    command, model, tmp_path, monkeypatch
):
    monkeypatch.setattr("prsr.cli.sample_files.SHEET_ROWS", 2)
    drawn = []
    sample = Sampler.sample
    monkeypatch.setattr(
        Sampler, "sample", lambda *a, **k: drawn.append(len(a[1])) or sample(*a, **k)
    )
    np.save(tmp_path / "set.npy", np.zeros((5, 3, 6, 6), np.uint8))
    sheet = tmp_path / "sheet.png"
    code, output, _ = command("sample", tmp_path / "set.npy", "--model", model, "-o", sheet)
    assert code == 0
    assert "the first 2 of 5 images" in output
    assert sum(drawn) == 2
    assert (
        "sheet shows"
        in command("sample", tmp_path / "set.npy", "--model", model, "-o", tmp_path / "all")[1]
    )
    assert sum(drawn) == 7


def test_resuming_replaces_samples_of_another_request(command, model, photos, tmp_path):
    other, expected = tmp_path / "other", tmp_path / "expected"
    torch.manual_seed(1)
    PRSR(PRSRConfig.preset("tiny")).save_pretrained(other)
    request = ("sample", photos, "--model", model, "--seed", 5)
    assert command(*request, "-o", expected)[0] == 0
    changes = [("--seed", 6), ("--temperature", 0.5), ("--model", other), ("--low-resolution",)]
    for number, change in enumerate(changes):
        out = tmp_path / f"{number}"
        assert command(*request, *change, "-o", out)[0] == 0
        (out / "a.png").write_bytes(b"no image")
        assert command(*request, "-o", out, "--resume", "--overwrite")[0] == 0
        for path in expected.iterdir():
            assert (out / path.name).read_bytes() == path.read_bytes(), change


def test_resuming_replaces_samples_with_the_noise_of_another_index(command, model, tmp_path):
    black = Image.new("RGB", (6, 6))
    (tmp_path / "folder").mkdir()
    for name in ("a.png", "b.png"):
        black.save(tmp_path / "folder" / name)
    request = ("sample", tmp_path / "folder", "--model", model, "--seed", 5)
    assert command(*request, "-o", tmp_path / "out")[0] == 0
    (tmp_path / "folder" / "a.png").unlink()  # b.png was image 1 and is now image 0
    assert command(*request, "-o", tmp_path / "out", "--resume")[0] == 0
    expected = Sampler(PRSR.from_pretrained(model)).sample(np.zeros((1, 3, 3, 3), np.uint8), seed=5)
    assert np.array_equal(
        pixels(tmp_path / "out" / "b.png"), np.asarray(to_pil(expected[0].numpy(), TINY))
    )


def test_a_contact_sheet_is_sampled_again_on_resuming(command, model, photos, tmp_path):
    request = ("sample", photos, "-o", tmp_path / "sheet.png", "--model", model, "--seed", 5)
    assert command(*request)[0] == 0
    before = (tmp_path / "sheet.png").read_bytes()
    code, _, errors = command(*request, "--resume")
    assert (code, errors) == (0, "")
    assert (tmp_path / "sheet.png").read_bytes() == before


def test_outputs_of_one_call_have_different_names(command, model, photos, tmp_path):
    names = ("a.png", "more/a.png", "other/a~2.png", "contact-sheet.png")
    (photos / "b.jpg").unlink()
    (photos / "other").mkdir()
    for name in names[1:]:
        (photos / name).write_bytes((photos / "a.png").read_bytes())
    code, _, _ = command("sample", photos, "-o", tmp_path / "out", "--model", model)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert code == 0
    assert len(written) == len(names) + 1
    assert "contact-sheet~2.png" in written
    assert pixels(tmp_path / "out" / "contact-sheet.png").shape[1] > 96


def test_output_inside_the_input_folder_is_not_read_by_the_next_run(command, model, photos):
    for _ in range(2):
        code, _, errors = command("sample", photos, "-o", photos / "out", "--model", model)
        assert (code, errors) == (0, "")
    assert len(list((photos / "out").iterdir())) == 4


def test_many_samples_of_one_image_are_sampled_in_slices(
    command, model, photos, tmp_path, monkeypatch
):
    drawn = []
    job = sampler.make_job
    monkeypatch.setattr(sampler, "make_job", lambda *call: drawn.append(len(call[1])) or job(*call))
    monkeypatch.setattr(sampler, "per_slice", lambda *size, **options: 4)
    out = tmp_path / "sheet.png"
    command("sample", photos / "a.png", "-o", out, "--model", model, "--samples", 7)
    assert drawn == [4, 3]


def test_brackets_in_names_are_not_markup(command, model, photos, tmp_path):
    (tmp_path / "q[").mkdir()
    for out in (tmp_path / "q[" / "a].png", tmp_path / "out[old]"):
        code, printed, _ = command("sample", photos / "a.png", "-o", out, "--model", model)
        assert code == 0
        assert str(out) in printed.replace("\n", "")


def test_a_contact_sheet_is_a_single_file(command, model, photos, tmp_path):
    sheet = tmp_path / "sheet.png"
    code, _, _ = command("sample", photos / "a.png", "-o", sheet, "--model", model)
    assert code == 0
    # input, bicubic, one sample and the truth, 96 wide with gaps of 6
    assert Image.open(sheet).width == 6 + 4 * 102
    assert not [path for path in tmp_path.iterdir() if "writing" in path.name]


@pytest.mark.parametrize("name", bundled_models())
def test_the_demo_samples_the_bundled_inputs(command, tmp_path, name):
    sheet = tmp_path / "demo.png"
    code, printed, _ = command("demo", "-o", sheet, "--samples", 1, "--model", name)
    assert code == 0
    assert "demo.png" in printed
    assert re.search(r": \d+\.\d s\b", printed)
    # input, bicubic and one sample, 96 wide with gaps of 6
    assert Image.open(sheet).width == 6 + 3 * 102


def test_an_interruption_prints_one_line_and_keeps_complete_files(
    command, model, photos, tmp_path, monkeypatch
):
    from prsr.engines.torch import TorchEngine

    rows, row = [], TorchEngine.row

    def interrupted(self, state, y):
        rows.append(y)
        if len(rows) == 10:
            raise KeyboardInterrupt
        row(self, state, y)

    monkeypatch.setattr(TorchEngine, "row", interrupted)
    monkeypatch.setattr("prsr.cli.sample_files.CHUNK", 1)
    out = tmp_path / "out"
    code, _, errors = command("sample", photos, "-o", out, "--model", model, "--engine", "torch")
    assert code == 130
    assert errors.strip() == "prsr: interrupted; all files written so far are complete"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
