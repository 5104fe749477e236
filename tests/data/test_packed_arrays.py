"""Packed array files: lossless without a quality; damage gives a one-line error."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from prsr.data.packed_arrays import pack, unpack


def images(n, channels=3, height=32, width=20, seed=0):
    """Images, half of them noise and half smooth."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, channels, height, width), dtype=np.uint8)
    ramp = np.arange(height)[:, None] + 3 * np.arange(width)
    pixels[n // 2 :] = ramp + rng.integers(0, 100, (n - n // 2, channels, 1, 1))
    return pixels


def packed(folder, pixels, **options):
    """Pack images into a file in a folder."""
    np.save(folder / "set.npy", pixels)
    pack(folder / "set.npy", folder / "set.zip", **options)
    return folder / "set.zip"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("n", [1, 63, 64, 130])
def test_packing_without_a_quality_is_lossless(tmp_path, n, channels):
    path = packed(tmp_path, images(n, channels))
    assert unpack(path, tmp_path / "back.npy") == (n, channels, 32, 20)
    assert (tmp_path / "back.npy").read_bytes() == (tmp_path / "set.npy").read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 1 + -(-n // 64)
        assert Image.open(archive.open(archive.namelist()[1])).format == "WEBP"


@pytest.mark.parametrize("channels", [1, 3])
def test_packing_with_a_quality_is_smaller_and_keeps_order_and_colours(tmp_path, channels):
    pixels = np.empty((100, channels, 16, 16), np.uint8)
    pixels[:] = np.random.default_rng(0).integers(0, 256, (100, channels, 1, 1))
    path = packed(tmp_path, pixels, quality=95)
    unpack(path, tmp_path / "back.npy")
    assert np.abs(np.load(tmp_path / "back.npy").astype(int) - pixels).max() <= 4
    with zipfile.ZipFile(path) as archive:
        assert Image.open(archive.open(archive.namelist()[1])).format == "JPEG"
    smooth = images(64)[32:]
    sizes = []
    for number, quality in enumerate((95, 50)):
        (tmp_path / f"{number}").mkdir()
        sizes.append(packed(tmp_path / f"{number}", smooth, quality=quality).stat().st_size)
    assert sizes[0] > sizes[1]


def test_jpeg_colours_are_not_subsampled(tmp_path):
    pixels = np.zeros((1, 3, 16, 16), np.uint8)
    pixels[:, 0, :, ::2] = 255  # alternating red and blue columns
    pixels[:, 2, :, 1::2] = 255
    unpack(packed(tmp_path, pixels, quality=95), tmp_path / "back.npy")
    assert np.abs(np.load(tmp_path / "back.npy").astype(int) - pixels).max() < 30


def test_packing_is_reproducible(tmp_path):
    first = packed(tmp_path, images(130)).read_bytes()
    (tmp_path / "set.zip").unlink()
    path = packed(tmp_path, images(130))
    assert path.read_bytes() == first
    with zipfile.ZipFile(path) as archive:  # it contains no current time
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_tall_images_share_smaller_strips(tmp_path):
    pixels = images(5, 1, 4096, 2)
    unpack(packed(tmp_path, pixels), tmp_path / "back.npy")
    assert np.array_equal(np.load(tmp_path / "back.npy"), pixels)


def rewrite(path, change):
    """Apply ``change`` to the members of a packed array file, a dictionary of bytes by name."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def index(**changes):
    """A change of some fields of the index."""

    def change(members):
        found = {**json.loads(members["index.json"]), **changes}
        members["index.json"] = json.dumps(found).encode()

    return change


def png(members):
    file = io.BytesIO()
    Image.new("RGB", (20, 32 * 64)).save(file, "PNG")
    members["000000000.webp"] = file.getvalue()


def short(members):
    file = io.BytesIO()
    Image.new("RGB", (20, 32 * 63)).save(file, "WEBP", lossless=True)
    members["000000000.webp"] = file.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.pop("index.json"),
        lambda members: members.pop("000000064.webp"),
        lambda members: members.update({"000000128.webp": b""}),
        lambda members: members.update({"000000064.webp": b""}),
        lambda members: members.update({"000000000.webp": members["000000000.webp"][:-40]}),
        lambda members: members.update({"index.json": b"{"}),
        lambda members: members.update({"index.json": b"[1]"}),
        lambda members: members.update({"index.json": b"{}"}),
        lambda members: members.update({"000000064.webp": members["000000000.webp"]}),
        png,
        short,
        index(version="prsr strips 9"),
        index(format="png"),
        index(shape=[100, 3, 32]),
        index(shape=[100, 2, 32, 20]),
        index(shape=[100, 3, 32, 2.5]),
        index(shape=[2**50, 3, 32, 20]),
        index(shape=[101, 3, 32, 20]),
        index(shape=[128 * 10**9, 3, 32, 20]),
        index(strip=0),
        index(strip=63),
        index(strip="64"),
        index(strip=10**6),
        index(more=1),
    ],
)
def test_a_damaged_file_is_refused_and_leaves_no_output(tmp_path, change):
    path = packed(tmp_path, images(100))
    rewrite(path, change)
    with pytest.raises(ValueError, match=r"set\.zip is not a readable packed array file: \w+"):
        unpack(path, tmp_path / "back.npy")
    assert {path.name for path in tmp_path.iterdir()} == {"set.npy", "set.zip"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (index(version="prsr strips 9"), "its version is 'prsr strips 9', not 'prsr strips 1'"),
        (index(format="png"), "its format is 'png', not webp or jpeg"),
        (index(shape=[100, 2, 32, 20]), "it has 2 channels, not 1 or 3"),
        (index(shape=[100, 3, 2**20, 20]), "H must be from 1 to 4096, got 1048576"),
        (index(shape=[300, 3, 32, 20]), "it has 2 strips, not 5"),
        (short, r"000000000.webp is \(20, 2016\), not \(20, 2048\)"),
    ],
)
def test_the_error_names_what_is_wrong(tmp_path, change, message):
    path = packed(tmp_path, images(100))
    rewrite(path, change)
    with pytest.raises(ValueError, match=message):
        unpack(path, tmp_path / "back.npy")


def test_lost_or_changed_bytes_are_detected(tmp_path):
    path = packed(tmp_path, images(100))
    intact = path.read_bytes()
    middle = len(intact) // 2
    flipped = intact[:middle] + bytes([intact[middle] ^ 1]) + intact[middle + 1 :]
    for damaged in (b"", intact[:1000], intact[:-1], intact[1000:], flipped, b"no archive" * 99):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"set\.zip is not a readable packed array file"):
            unpack(path, tmp_path / "back.npy")
    assert {path.name for path in tmp_path.iterdir()} == {"set.npy", "set.zip"}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 3, 8, 8), np.float32), "must be uint8"),
        (np.zeros((5, 2, 8, 8), np.uint8), "must be uint8"),
        (np.zeros((5, 8, 8), np.uint8), "must be uint8"),
        (np.zeros((0, 3, 8, 8), np.uint8), "must be uint8"),
        (np.zeros((1, 1, 4097, 1), np.uint8), "at most 4096 pixels per side"),
    ],
)
def test_an_array_that_cannot_be_packed_is_refused(tmp_path, array, message):
    with pytest.raises(ValueError, match=message):
        packed(tmp_path, array)
    assert {path.name for path in tmp_path.iterdir()} == {"set.npy"}


def test_the_commands_pack_and_unpack(command, tmp_path):
    pixels = images(70)
    np.save(tmp_path / "set.npy", pixels)
    code, printed, _ = command("data", "pack", tmp_path / "set.npy", "-o", tmp_path / "set.zip")
    assert code == 0
    assert f"{(tmp_path / 'set.zip').stat().st_size:,} bytes" in printed.replace("\n", "")
    code, printed, _ = command("data", "unpack", tmp_path / "set.zip", "-o", tmp_path / "back.npy")
    assert code == 0
    assert "[70, 3, 32, 20]" in printed
    assert np.array_equal(np.load(tmp_path / "back.npy"), pixels)
    lossy = ("data", "pack", tmp_path / "set.npy", "--quality", 80, "-o", tmp_path / "lossy.zip")
    assert command(*lossy)[0] == 0
    assert (tmp_path / "lossy.zip").stat().st_size < (tmp_path / "set.zip").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("pack {tmp}/none.npy -o {tmp}/a.zip", "none.npy"),
        ("pack {tmp}/set.zip -o {tmp}/a.zip", "set.zip"),
        ("pack {tmp}/set.npy -o {tmp}/set.zip", "set.zip"),
        ("pack {tmp}/set.npy -o {tmp}/a.npy", ".zip"),
        ("pack {tmp}/set.npy -o {tmp}/a.zip --quality 0", "--quality"),
        ("unpack {tmp}/none.zip -o {tmp}/a.npy", "none.zip"),
        ("unpack {tmp}/set.npy -o {tmp}/a.npy", "set.npy"),
        ("unpack {tmp}/set.zip -o {tmp}/set.npy", "set.npy"),
        ("unpack {tmp}/set.zip -o {tmp}/a.zip", ".npy"),
        ("unpack {tmp}/set.zip -o {tmp}/nowhere/a.npy", "{tmp}/nowhere"),
    ],
)
def test_invalid_arguments_of_the_commands_give_a_one_line_error(
    command, tmp_path, arguments, named
):
    packed(tmp_path, images(3))
    code, _, errors = command("data", *arguments.format(tmp=tmp_path).split())
    assert code == 2
    assert named.format(tmp=tmp_path) in errors
    assert errors.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"set.npy", "set.zip"}


def test_an_invalid_jpeg_quality_is_refused(tmp_path):
    packed(tmp_path, images(3))
    with pytest.raises(ValueError, match="quality must be from 1 to 100, got 0"):
        pack(tmp_path / "set.npy", tmp_path / "a.zip", quality=0)
    assert {path.name for path in tmp_path.iterdir()} == {"set.npy", "set.zip"}
