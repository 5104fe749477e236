"""Files of ``prsr sample``: what is replaced, size limits, unreadable inputs, names."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from prsr import PRSR, Sampler
from prsr.data.contact_sheet import contact_sheet
from prsr.data.write_images import LONGEST_SIDES, SUFFIXES, check_size, provenance_of, save_image


@pytest.fixture
def untouched(monkeypatch):
    """Make any sampling fail."""
    monkeypatch.setattr(Sampler, "sample", None)


@pytest.mark.parametrize("samples", [1, 2])
def test_a_file_of_another_program_is_not_replaced(command, model, photos, tmp_path, samples):
    out, arguments = tmp_path / "hr", ("--samples", samples, "--model", model, "--low-resolution")
    out.mkdir()
    own = out / ("b.png" if samples == 1 else "b_2.png")
    Image.new("RGB", (512, 512), "red").save(own)
    before = own.read_bytes()
    code, _, errors = command("sample", photos, "-o", out, *arguments)
    assert code == 2
    assert f"{own} already exists and was not written by prsr" in errors
    assert [path.read_bytes() for path in out.iterdir()] == [before]
    for overwrite in (["--overwrite"], []):  # the second call replaces what prsr itself wrote
        code, _, errors = command("sample", photos, "-o", out, *arguments, *overwrite)
        assert (code, errors) == (0, "")
    assert own.read_bytes() != before


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_a_contact_sheet_is_recognised_as_written_by_prsr(command, model, photos, tmp_path, suffix):
    sheet = tmp_path / f"sheet{suffix}"
    Image.new("RGB", (4, 4)).save(sheet)
    request = ("sample", photos, "-o", sheet, "--model", model)
    assert command(*request)[0] == 2
    assert command(*request, "--overwrite")[0] == 0
    has_no_metadata = suffix in (".bmp", ".ppm")
    assert command(*request)[0] == (2 if has_no_metadata else 0)
    assert (provenance_of(sheet) is None) == has_no_metadata


def test_the_demo_replaces_only_its_own_output(command, tmp_path, untouched):
    (tmp_path / "demo.png").write_bytes(b"another file")
    code, _, errors = command("demo", "-o", tmp_path / "demo.png")
    assert code == 2
    assert "--overwrite to replace it" in errors


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".gif"])
def test_size_limits_of_a_format_are_reported_before_the_work(
    command, model, photos, tmp_path, untouched, suffix
):
    sheet, samples = tmp_path / f"sheet{suffix}", LONGEST_SIDES[suffix] // 102
    call = ("sample", photos / "a.png", "-o", sheet, "--model", model, "--samples", samples)
    code, _, errors = command(*call)
    assert code == 2
    assert f"a {suffix} file may have at most {LONGEST_SIDES[suffix]} per side" in errors
    code, _, errors = command("demo", "-o", sheet, "--samples", samples)
    assert code == 2
    assert "at most" in errors
    assert not sheet.exists()


@pytest.mark.parametrize("suffix", sorted(LONGEST_SIDES))
def test_an_image_of_the_largest_size_can_be_written(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    most = LONGEST_SIDES[suffix]
    check_size(path, most, most // 100)
    save_image(Image.new("RGB", (most, 1)), path)
    assert Image.open(path).size == (most, 1)
    with pytest.raises(ValueError, match="at most"):
        check_size(path, 1, most + 1)


def test_a_contact_sheet_too_large_for_the_memory_is_refused_before_the_work(
    command, model, photos, tmp_path, untouched
):
    call = ("sample", photos / "a.png", "-o", tmp_path / "a.png", "--model", model)
    code, _, errors = command(*call, "--samples", 2**31)
    assert code == 2
    assert "GiB, and cpu has" in errors


def test_a_very_tall_image_fits_on_a_contact_sheet():
    tall, flat = Image.new("RGB", (2, 4000), "red"), Image.new("RGB", (4000, 2), "blue")
    sheet = contact_sheet([[tall, flat]], ["tall", "flat"])
    assert sheet.size == (6 + 2 * 102, 22 + 8 * 96 + 6)
    colours = {colour for _, colour in sheet.getcolors(10**6)}
    assert {(255, 0, 0), (0, 0, 255)} <= colours


def test_an_unreadable_file_does_not_affect_the_others(command, model, photos, tmp_path):
    expected, out = tmp_path / "expected", tmp_path / "out"
    request = ("sample", photos, "--model", model, "--seed", 3, "--samples", 2)
    assert command(*request, "-o", expected)[0] == 0
    (photos / "b.jpg").write_bytes(b"no image")
    code, printed, errors = command(*request, "-o", out)
    assert (code, errors) == (1, "")
    assert f"skipped {photos / 'b.jpg'}: " in printed
    names = {path.name for path in expected.iterdir()} - {"b_1.png", "b_2.png"}
    assert {path.name for path in out.iterdir()} == names
    for name in names - {"contact-sheet.png"}:  # the others keep their noise
        assert (out / name).read_bytes() == (expected / name).read_bytes()
    heights = [Image.open(folder / "contact-sheet.png").height for folder in (expected, out)]
    assert heights[0] - heights[1] == 96 + 6
    sheet = tmp_path / "sheet.png"
    code, printed, _ = command(*request, "-o", sheet)
    assert (code, "skipped" in printed, sheet.exists()) == (1, True, True)


def test_an_image_too_large_for_the_memory_does_not_affect_the_others(
    command, model, photos, tmp_path
):
    width, height = Image.open(photos / "b.jpg").size

    def refused(sampler, *size):
        if size == (2 * height, 2 * width):
            raise ValueError("conditioning logits would take too much")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "check_size", refused)
        request = ("sample", photos, "--model", model, "--low-resolution", "-o", tmp_path / "out")
        code, printed, _ = command(*request)
    assert code == 1
    assert f"skipped {photos / 'b.jpg'}: {photos / 'b.jpg'}: conditioning logits" in printed
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_no_readable_image_is_an_error(command, model, photos, tmp_path, untouched):
    for path in photos.rglob("*.*"):
        path.write_bytes(b"no image")
    code, _, errors = command("sample", photos, "-o", tmp_path / "out", "--model", model)
    assert code == 2
    assert "a.png cannot be read as an image" in errors
    assert not (tmp_path / "out").exists()


def prsr_in_ascii(*arguments):
    """Run ``prsr`` where only ASCII can be printed."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}
    call = [sys.executable, "-m", "prsr", *arguments]
    return subprocess.run(call, env=environment, capture_output=True)


def test_names_that_are_not_utf8_do_not_fail_a_finished_run(model, photos, tmp_path):
    raw = os.fsencode(photos)
    with open(raw + b"/bad\xff\n.png", "wb") as file:
        file.write(b"no image")
    out = os.fsencode(tmp_path) + b"/t\xc3\xa9\xff"
    done = prsr_in_ascii("sample", raw, "-o", out, "--model", model)
    assert done.returncode == 1, done.stderr
    assert rb"skipped " in done.stdout
    assert rb"bad\udcff\n.png" in done.stdout
    assert rb"t\xe9\udcff" in done.stdout
    array = os.fsencode(tmp_path) + b"/\xc3\xa9.npy"
    done = prsr_in_ascii("data", "folder", raw, "--out", array, "--preset", "tiny")
    assert done.returncode == 0, done.stderr
    assert rb"skipped bad\udcff\n.png" in done.stdout
    assert np.load(array).shape == (3, 3, 6, 6)
    run = os.fsencode(tmp_path) + b"/run\xff"
    arguments = ("--data", array, "--preset", "tiny", "--steps", "1", "--batch-size", "1")
    done = prsr_in_ascii("train", *arguments, "--out", run)
    assert done.returncode == 2
    assert rb"run\udcff is not UTF-8, so no model can be written there" in done.stderr
    assert not os.path.exists(run)
    with pytest.raises(ValueError, match="is not UTF-8"):
        PRSR.from_pretrained(model).save_pretrained(os.fsdecode(run))


def test_a_table_for_a_name_that_is_not_utf8_is_written(command, models, data, tmp_path):
    with open(os.fsencode(data.parent) + b"/\xff.npy", "wb") as copy:
        copy.write(data.read_bytes())
    name = os.fsdecode(os.fsencode(data.parent) + b"/\xff.npy")
    out = tmp_path / "table"
    call = ("evaluate", "--data", name, "--model", models["recursive"], "--baseline", "bicubic")
    code, printed, errors = command(*call, "--out", out)
    assert (code, errors) == (0, "")
    assert r"\udcff.npy" in printed
    assert r"\udcff.npy" in (out / "table.md").read_text()


def test_provenance_is_read_from_every_format(tmp_path):
    for suffix in (".png", ".jpg", ".webp", ".tif", ".gif"):
        path = tmp_path / f"a{suffix}"
        save_image(Image.new("RGB", (4, 4)), path, '{"seed": 3}')
        assert provenance_of(path) == '{"seed": 3}'
        Image.new("RGB", (4, 4)).save(path, comment=b"prsr", software="prsr of another kind")
        assert provenance_of(path) is None
    assert provenance_of(tmp_path / "nothing.png") is None


@pytest.mark.parametrize("name", ["table.json", "table.csv", "table.md"])
def test_a_table_of_another_program_is_not_replaced(command, models, data, tmp_path, name):
    out = tmp_path / "table"
    out.mkdir()
    (out / name).write_text("{}")
    call = ("evaluate", "--data", data, "--model", models["recursive"], "--out", out)
    code, _, errors = command(*call)
    assert code == 2
    assert name in errors
    assert "--overwrite" in errors
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: "{}"}
    assert command(*call, "--overwrite")[0] == 0
    assert command(*call)[0] == 0
