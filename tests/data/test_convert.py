"""Conversion of a data source: bit-identical after a kill at any time, and never half-written."""

import json
import os
import signal
import subprocess
import sys
from itertools import count

import numpy as np
import pytest
from PIL import Image

import prsr.data.convert as conversion
from prsr import PRSRConfig
from prsr.data.convert import convert
from prsr.data.sources import SourceImage, image_folder

TINY = PRSRConfig.preset("tiny")


@pytest.fixture
def folder(tmp_path):
    """Seven images; the second and the last are unreadable."""
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(7):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    for number in (1, 6):
        (folder / f"{number}.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def expected(folder, tmp_path):
    """Bytes of an uninterrupted conversion."""
    convert(image_folder(folder), tmp_path / "whole.npy", TINY)
    return (tmp_path / "whole.npy").read_bytes()


def files(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir() if path.is_file())


def test_a_conversion_writes_the_readable_images(folder, tmp_path):
    done = convert(image_folder(folder), tmp_path / "set.npy", TINY)
    assert (done.read, done.written, done.odd_sized) == (7, 5, 0)
    assert [name for name, _ in done.unreadable] == ["1.png", "6.png"]
    pixels = np.load(tmp_path / "set.npy", allow_pickle=False)
    assert (pixels.shape, pixels.dtype) == ((5, 3, 6, 6), np.uint8)
    assert files(tmp_path) == ["set.npy"]


def convert_until(moment, folder, out, monkeypatch):
    """Convert, interrupted in the middle of write number ``moment``; returns whether it was."""
    append, left = conversion.write_and_flush, [moment]

    def torn(file, data):
        left[0] -= 1
        if left[0] < 0:
            append(file, data[: len(data) // 2])
            raise KeyboardInterrupt
        append(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "write_and_flush", torn)
        try:
            convert(image_folder(folder), out, TINY)
        except KeyboardInterrupt:
            return True
    return False


def test_an_interruption_of_any_write_leaves_the_result_bit_identical(
    folder, tmp_path, expected, monkeypatch
):
    monkeypatch.setattr(conversion, "CHUNK", 2)
    for moment in count():
        out = tmp_path / f"{moment}.npy"
        if not convert_until(moment, folder, out, monkeypatch):
            break
        assert not out.exists()
        if convert_until(2, folder, out, monkeypatch):  # interrupt the resumed run a chunk later
            done = convert(image_folder(folder), out, TINY)
            assert (done.read, [name for name, _ in done.unreadable]) == (7, ["1.png", "6.png"])
        assert out.read_bytes() == expected, moment
    assert moment == 2 + 2 * 4 + 1  # two headers, four chunks, the header again
    assert not [name for name in files(tmp_path) if not name.endswith(".npy")]


def test_an_interruption_after_the_last_write_leaves_it_bit_identical(
    folder, tmp_path, expected, monkeypatch
):
    out = tmp_path / "set.npy"

    def killed(*args, **options):
        raise KeyboardInterrupt

    for target in ("os.replace", "pathlib.Path.unlink"):
        with monkeypatch.context() as patch:
            patch.setattr(target, killed)
            with pytest.raises(KeyboardInterrupt):
                convert(image_folder(folder), out, TINY)
        out.unlink(missing_ok=True)
        convert(image_folder(folder), out, TINY)
        assert out.read_bytes() == expected
        out.unlink()


# The process kills itself after the fifth write.
KILLED = """
import os, signal, sys
import prsr.data.convert as conversion
from prsr.cli.main import main
conversion.CHUNK, append, calls = 2, conversion.write_and_flush, []
def write_and_die(file, data):
    append(file, data)
    calls.append(data)
    if len(calls) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
conversion.write_and_flush = write_and_die
sys.argv[0] = "prsr"
main()
"""


def test_a_killed_command_resumes(folder, tmp_path, expected):
    out = tmp_path / "set.npy"
    arguments = ["data", "folder", str(folder), "--out", str(out), "--preset", "tiny"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert files(tmp_path) == ["set.npy.journal", "set.npy.partial", "whole.npy"]
    lines = (tmp_path / "set.npy.journal").read_bytes().count(b"\n")
    assert lines == 2  # the header and one chunk
    again = [sys.executable, "-m", "prsr", *arguments]
    done = subprocess.run(again, capture_output=True, text=True, check=True)
    assert "skipped 1.png" in done.stdout
    assert "5 images, 2 skipped" in done.stdout
    assert out.read_bytes() == expected
    assert files(tmp_path) == ["set.npy", "whole.npy"]


def test_converted_images_are_not_read_again(folder, tmp_path, monkeypatch):
    out, starts = tmp_path / "set.npy", []
    source = image_folder(folder)
    after = source.images_from

    def interrupted(start):
        starts.append(start)
        for image in after(start):
            if image.name == "4.png" and len(starts) == 1:
                raise KeyboardInterrupt
            yield image

    monkeypatch.setattr(conversion, "CHUNK", 2)
    monkeypatch.setattr(source, "images_from", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(source, out, TINY)
    convert(source, out, TINY)
    assert starts == [0, 4]


def convert_almost(folder, out, monkeypatch):
    """A conversion that is interrupted just before its end."""

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            convert(image_folder(folder), out, TINY)


def test_a_conversion_of_another_source_or_size_is_not_resumed(folder, tmp_path, monkeypatch):
    out = tmp_path / "set.npy"
    convert_almost(folder, out, monkeypatch)
    with pytest.raises(ValueError, match="is of another data source or size: delete it"):
        convert(image_folder(folder), out, PRSRConfig.preset("paper"))
    before = (folder / "0.png").stat()
    changes = [
        lambda: (folder / "0.png").write_bytes((folder / "2.png").read_bytes()),
        lambda: os.utime(folder / "0.png", ns=(0, before.st_mtime_ns + 1)),
        lambda: (folder / "0.png").rename(folder / "8.png"),
    ]
    for change in changes:
        change()
        with pytest.raises(ValueError, match=r"set\.npy\.journal is of another data source"):
            convert(image_folder(folder), out, TINY)


def test_only_one_process_may_write_an_array(folder, tmp_path, expected, monkeypatch):
    out, append = tmp_path / "set.npy", conversion.write_and_flush

    def meanwhile(file, data):
        with pytest.raises(BlockingIOError, match=r"another process is writing .*set\.npy"):
            convert(image_folder(folder), out, TINY)
        append(file, data)

    monkeypatch.setattr(conversion, "write_and_flush", meanwhile)
    convert(image_folder(folder), out, TINY)
    assert out.read_bytes() == expected


def test_a_damaged_journal_is_reported(folder, tmp_path, monkeypatch):
    out = tmp_path / "set.npy"
    convert_almost(folder, out, monkeypatch)
    journal = tmp_path / "set.npy.journal"
    title = journal.read_bytes().splitlines(keepends=True)[0]
    for line in (b"{", b"[]", b'{"pages": 3}'):
        journal.write_bytes(title + line + b"\n")
        with pytest.raises(ValueError, match=r"set\.npy\.journal is damaged: delete it"):
            convert(image_folder(folder), out, TINY)


def test_a_conversion_without_its_complete_array_starts_again(
    folder, tmp_path, expected, monkeypatch
):
    out = tmp_path / "set.npy"
    convert_almost(folder, out, monkeypatch)
    with (tmp_path / "set.npy.partial").open("r+b") as array:
        array.truncate(os.path.getsize(array.name) - 1)
    convert(image_folder(folder), out, TINY)
    assert out.read_bytes() == expected


def test_images_of_an_unexpected_size_are_counted(folder, tmp_path):
    source = image_folder(folder)
    Image.new("RGB", (12, 9)).save(folder / "3.png")
    source.size = (9, 9)
    done = convert(source, tmp_path / "set.npy", TINY)
    assert (done.written, done.odd_sized, done.first_odd_sized) == (5, 1, "3.png of 12×9")


def test_a_source_without_readable_images_is_an_error_and_leaves_no_file(folder, tmp_path):
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"not one of 7 images can be read; the first is 0\.png"):
        convert(image_folder(folder), tmp_path / "set.npy", TINY)
    assert files(tmp_path) == []


def test_an_unsupported_number_of_channels_is_refused_before_the_work(folder, tmp_path):
    with pytest.raises(ValueError, match="1 or 3 channels"):
        convert(image_folder(folder), tmp_path / "set.npy", PRSRConfig(channels=2))
    assert files(tmp_path) == []


def test_only_one_chunk_is_held_in_memory(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(file)
    monkeypatch.setattr(conversion, "CHUNK", 3)
    ahead, most = [0], [0]
    append = conversion.write_and_flush

    class Many(type(image_folder(tmp_path))):
        def images_from(self, start):
            for number in range(start, 20):
                ahead[0] += 1
                most[0] = max(most[0], ahead[0])
                yield SourceImage(f"{number}", file.read_bytes())

    def counting(out, data):
        append(out, data)
        if out.name.endswith(".partial"):
            ahead[0] = 0

    monkeypatch.setattr(conversion, "write_and_flush", counting)
    done = convert(Many(tmp_path, ["a"] * 20), tmp_path / "set.npy", TINY)
    assert (done.written, most[0]) == (20, 3)


def test_the_journal_is_readable_json(folder, tmp_path, monkeypatch):
    convert_almost(folder, tmp_path / "set.npy", monkeypatch)
    title, chunk = map(json.loads, (tmp_path / "set.npy.journal").read_text().splitlines())
    assert title["shape"] == [3, 6, 6]
    assert chunk["read"] == 7
    assert [name for name, _ in chunk["unreadable"]] == ["1.png", "6.png"]


def test_a_conversion_killed_before_its_journal_is_removed_is_complete(
    folder, tmp_path, expected, monkeypatch
):
    out, journal = tmp_path / "set.npy", tmp_path / "set.npy.journal"

    def killed(path, missing_ok=False):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            convert(image_folder(folder), out, TINY)
    written = journal.read_bytes()
    assert out.read_bytes() == expected
    result = convert(image_folder(folder), out, TINY)
    assert (result.written, len(result.unreadable)) == (5, 2)
    assert files(tmp_path) == ["set.npy", "whole.npy"]
    # Any other array file is not touched.
    for other in (expected[:-1], expected + b"x", expected.replace(b"(5,", b"(6,", 1)):
        out.write_bytes(other)
        journal.write_bytes(written)
        with pytest.raises(FileExistsError, match=r"set\.npy already exists"):
            convert(image_folder(folder), out, TINY)
        assert out.read_bytes() == other
