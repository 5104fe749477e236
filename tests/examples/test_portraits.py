"""The build script of the portraits: both layouts of the set, and a split by person."""

import io
import itertools
import re

import numpy as np
import pytest
from PIL import Image

from examples.portraits import build as portraits
from prsr.data.packed_arrays import unpack
from tests.examples.archives import archive


def smooth(side, seed):
    """A smooth image as a JPEG file without chroma subsampling."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


# In ASCII order; the second person has two photographs.
NAMES = ("AJ_Cook", "Aaron_Guiel", "Aaron_Peirsol", "Abel_Aguilar", "Zoran_Djindjic", "di_Maria")
OF_PERSON = {name: 2 if name == "Aaron_Guiel" else 1 for name in NAMES}


@pytest.fixture
def small_lfw(monkeypatch):
    """Expect six persons, two of them held out, instead of LFW's 5,749."""
    monkeypatch.setattr(portraits, "PERSONS", 6)
    monkeypatch.setattr(portraits, "PHOTOGRAPHS", 7)
    monkeypatch.setattr(portraits, "HELD_OUT", 2)
    test, validation = np.random.default_rng(0).permutation(6)[:2].tolist()
    assert 1 not in (test, validation)
    monkeypatch.setattr(portraits, "TRAINING", 5)
    monkeypatch.setattr(portraits, "PORTRAITS", 3)
    return test, validation


def official(side=250):
    """Bytes by path of files in the layout of the official archive, unsorted."""
    found = {"lfw-deepfunneled/README.jpg": b"no photograph"}
    for seed, name in enumerate(reversed(NAMES)):
        for number in range(OF_PERSON[name], 0, -1):
            found[f"lfw-deepfunneled/{name}/{name}_{number:04}.jpg"] = smooth(
                side, 10 * seed + number
            )
    return found


def numbered():
    """The same photographs at 96×96, named by numbers."""
    found = {}
    for path, data in official().items():
        if path.count("/") == 2:
            name, number = path.split("/")[-1][:-4].rsplit("_", 1)
            image = Image.open(io.BytesIO(data)).crop((54, 52, 198, 196))
            file = io.BytesIO()
            image.resize((96, 96), Image.Resampling.LANCZOS).save(file, "PNG")
            found[f"lfw-96/{NAMES.index(name):04}_{int(number):03}.jpg"] = file.getvalue()
    return found


def unpacked(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_portraits_are_split_by_person_and_reproducibly():
    parts = portraits.split(list(range(5749)))
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [5249, 250, 250]
    assert sorted(itertools.chain(*parts.values())) == list(range(5749))
    assert parts["test"][:5] == [26, 38, 107, 118, 135]
    assert parts["validation"][:5] == [19, 42, 72, 82, 131]
    twice = portraits.split([person for person in range(5749) for _ in range(2)])
    for name, places in parts.items():
        assert twice[name] == [2 * place + copy for place in places for copy in range(2)]


@pytest.mark.parametrize("kind", ["tgz", "tar", "folder", "folder within"])
def test_persons_of_the_official_layout_are_numbered_in_ascii_order(tmp_path, kind):
    source = tmp_path / "lfw"
    if kind.startswith("folder"):
        unpacked(source, official())
        source = source / "lfw-deepfunneled" if kind == "folder within" else source
    else:
        archive(source, official(), "w:gz" if kind == "tgz" else "w")
    every = portraits.photographs(source, portraits.OFFICIAL, portraits.NUMBERED)
    found = [(one.person, one.number, one.name.split("/")[-1]) for one in every]
    assert found == [
        (person, number, f"{name}_{number:04}.jpg")
        for person, name in enumerate(NAMES)
        for number in range(1, OF_PERSON[name] + 1)
    ]


def build_portraits(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["build.py", *map(str, arguments)])
    portraits.main()


def test_both_layouts_give_the_same_portraits(tmp_path, small_lfw, monkeypatch):
    test, validation = small_lfw
    sources = archive(tmp_path / "a.tgz", official(), "w:gz"), archive(tmp_path / "b", numbered())
    for number, source in enumerate(sources):
        build_portraits(monkeypatch, "--lfw", source, "--out", tmp_path / f"{number}")
        assert len(list((tmp_path / f"{number}").iterdir())) == 3
    names = [f"portraits-{name}.npy" for name in ("train", "validation", "test")]
    arrays = [[np.load(tmp_path / folder / name) for name in names] for folder in "01"]
    for one, other in zip(*arrays, strict=True):
        assert np.array_equal(one, other)
    images = {
        name: np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)
        for name, data in sorted(numbered().items())
    }
    by_person = [(int(name[7:11]), image) for name, image in images.items()]
    train = [image for person, image in by_person if person not in small_lfw]
    assert np.array_equal(arrays[0][0], np.stack(train)[:, :, 6:90, 6:90])
    for array, person in ((arrays[0][1], validation), (arrays[0][2], test)):
        (image,) = [image for one, image in by_person if one == person]
        middle = Image.fromarray(image[:, 10:85, 10:85].transpose(1, 2, 0))
        expected = np.asarray(middle.resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        assert np.array_equal(array, expected[None])


def test_packed_portraits_unpack_to_the_same_arrays(tmp_path, small_lfw, monkeypatch, capsys):
    members = {f"congress-96/{number:04}.jpg": smooth(96, number) for number in range(3)}
    sources = ("--lfw", archive(tmp_path / "a", numbered()))
    sources += ("--congress", archive(tmp_path / "b", members))
    out = tmp_path / "out"
    for _ in range(2):  # the second run replaces the files of the first
        build_portraits(monkeypatch, *sources, "--out", out, "--packed")
    assert len(list(out.iterdir())) == 8
    for name in ("portraits-validation", "portraits-test", "congress-test"):
        unpack(out / f"{name}.zip", tmp_path / f"{name}.npy")
        assert (tmp_path / f"{name}.npy").read_bytes() == (out / f"{name}.npy").read_bytes()
    assert unpack(out / "portraits-train.zip", tmp_path / "train.npy") == (5, 3, 64, 64)
    original, unpacked_array = np.load(out / "portraits-train.npy"), np.load(tmp_path / "train.npy")
    for large, small in zip(original, unpacked_array, strict=True):
        image = Image.fromarray(large.transpose(1, 2, 0)).resize((64, 64), Image.Resampling.BICUBIC)
        difference = small - np.asarray(image).transpose(2, 0, 1).astype(float)
        assert np.abs(difference).mean() < 3

    def reduced_middle(images):
        """The middle 75 of 84 pixels at 32×32."""
        side = images.shape[-1]
        rim = 4.5 * side / 84
        box = (rim, rim, side - rim, side - rim)
        return np.stack(
            [
                Image.fromarray(image.transpose(1, 2, 0)).resize(
                    (32, 32), Image.Resampling.BICUBIC, box=box
                )
                for image in images
            ]
        ).astype(float)

    expected = 10 * np.log10(
        255**2 / np.mean((reduced_middle(original) - reduced_middle(unpacked_array)) ** 2)
    )
    (loss,) = re.findall(r"pSNR at 32×32 ([\d.]+) dB", capsys.readouterr().out)[-1:]
    assert float(loss) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("change", ["fewer", "more", "other persons", "torn", "size", "archive"])
def test_an_incomplete_or_unreadable_set_is_refused(tmp_path, small_lfw, monkeypatch, change):
    files = numbered()
    first = min(files)
    message = "must hold 7 photographs of 6 persons, it holds"
    if change == "fewer":
        del files[first]
    elif change == "more":
        files["lfw-96/0000_009.jpg"] = files[first]
    elif change == "other persons":
        files["lfw-96/0007_001.jpg"] = files.pop(first)
    elif change == "torn":
        files[first], message = files[first][:50], "0000_001.jpg cannot be read"
    elif change == "size":
        files[first], message = smooth(97, 0), "0000_001.jpg is .97, 97., neither 250×250 nor 96×96"
    source = archive(tmp_path / "set.tar", files)
    if change == "archive":
        source.write_bytes(b"no archive" * 99)
        message = "is not a readable tar archive"
    with pytest.raises(SystemExit, match=message):
        build_portraits(monkeypatch, "--lfw", source, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_numbering_of_persons_is_refused(tmp_path, small_lfw, monkeypatch):
    # Move a photograph to a held-out person, so that fewer are left for training.
    files = numbered()
    files[f"lfw-96/{small_lfw[0]:04}_002.jpg"] = files.pop("lfw-96/0001_002.jpg")
    source = archive(tmp_path / "set.tar", files)
    with pytest.raises(SystemExit, match="must have 5 photographs to train on, it has 4"):
        build_portraits(monkeypatch, "--lfw", source, "--out", tmp_path / "out")
