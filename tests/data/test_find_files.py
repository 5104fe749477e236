"""Which files of a folder are images, and how the others are reported."""

import os

import numpy as np
import pytest
from PIL import Image

from prsr import PRSRConfig
from prsr.data.convert import convert
from prsr.data.find_files import find_images, readable_suffixes
from prsr.data.sources import image_folder
from prsr.utils.terminal_messages import Notice

TINY = PRSRConfig.preset("tiny")


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def found(folder):
    return [path.relative_to(folder).as_posix() for path in find_images([folder])]


def test_every_format_that_pillow_reads_is_found(tmp_path):
    names = [f"a.{s}" for s in ("pgm", "jfif", "jp2", "avif", "tga", "tiff", "PNG", "webp", "mpo")]
    for name in names:
        image = Image.new("L" if name == "a.pgm" else "RGB", (9, 9))
        image.save(tmp_path / name)
    assert found(tmp_path) == sorted(names)
    done = convert(image_folder(tmp_path), tmp_path / "set.npy", TINY)
    assert (done.written, done.unreadable) == (len(names), [])


def test_formats_that_run_a_program_or_hold_no_pixels_are_excluded():
    assert not readable_suffixes() & {".eps", ".ps", ".pdf", ".h5", ".grib", ".wmf", ".npy", ""}


def test_hidden_files_and_folders_are_skipped_and_counted(tmp_path):
    for name in ("a.png", "b/c.png", ".ipynb_checkpoints/a.png", "b/.thumbnails/large/c.png"):
        image(tmp_path / name)
    image(tmp_path / ".d.png")
    (tmp_path / "b" / "notes.txt").write_text("")
    with pytest.warns(Notice, match="skipped in") as caught:
        assert found(tmp_path) == ["a.png", "b/c.png"]
    assert str(caught[0].message).endswith(
        "3 hidden (.d.png, .ipynb_checkpoints, b/.thumbnails); "
        "1 not in a readable image format (b/notes.txt)"
    )


def test_a_hidden_folder_is_read_when_named(tmp_path):
    image(tmp_path / ".cache" / "a.png")
    assert found(tmp_path / ".cache") == ["a.png"]


def test_only_the_first_skipped_names_are_listed(tmp_path):
    image(tmp_path / "a.png")
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("")
    with pytest.warns(
        Notice, match=r"5 not in a readable image .* \(0\.txt, 1\.txt, 2\.txt and 2 more\)"
    ):
        found(tmp_path)


def test_linked_folders_are_followed_and_each_is_read_once(tmp_path):
    folder, other = tmp_path / "set", tmp_path / "other"
    image(folder / "b" / "a.png")
    image(other / "c.png")
    (folder / "elsewhere").symlink_to(other)
    (other / "loop").symlink_to(folder)
    (folder / "again").symlink_to(other)
    (folder / "b" / "broken.png").symlink_to(tmp_path / "nothing")
    with pytest.warns(Notice) as caught:
        assert found(folder) == ["again/c.png", "b/a.png"]
    message = str(caught[0].message)
    assert "2 read already under another name (again/loop, elsewhere)" in message
    assert "1 not a file, or a broken link (b/broken.png)" in message


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path, monkeypatch):
    image(tmp_path / "a.png")
    image(tmp_path / "locked" / "b.png")
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.warns(Notice, match=r"1 that cannot be listed: Permission denied \(locked\)"):
        assert found(tmp_path) == ["a.png"]


def test_the_error_for_a_folder_without_images_lists_its_contents(tmp_path):
    (tmp_path / "a.doc").write_text("")
    with pytest.raises(
        FileNotFoundError, match=r"no image in folder .*: 1 not in a readable image .*a\.doc"
    ):
        find_images([tmp_path])


def test_names_of_any_bytes_are_reported_in_ascii(tmp_path):
    image(tmp_path / "a.png")
    with open(os.fsencode(tmp_path) + b"/\xff\n.txt", "w"):
        pass
    with pytest.warns(Notice, match=r"\(\\udcff\\n\.txt\)"):
        found(tmp_path)


def test_folders_are_searched_recursively_and_in_order(tmp_path):
    for name in ("b.png", "a/c.jpg", "a.png"):
        image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.warns(Notice, match=r"1 not in a readable image format \(notes\.txt\)"):
        assert found(tmp_path) == ["a/c.jpg", "a.png", "b.png"]
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "folder.png").mkdir()
    assert len(find_images([tmp_path])) == 3
    assert [path.name for path in find_images([tmp_path], tmp_path / "a")] == ["a.png", "b.png"]
    assert len(find_images([tmp_path / "a"], tmp_path)) == 1
    assert len(find_images([tmp_path], tmp_path)) == 3
