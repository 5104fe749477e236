"""`prsr data` reads CelebA, LSUN, folders and data sets of the hub."""

import functools
import io
import os
import shlex
import sys

import numpy as np
import pytest
from PIL import Image

from prsr import PRSRConfig
from prsr.data.dataset import SuperResolutionImages
from prsr.data.image_arrays import high_resolution
from prsr.data.sources import HubDataset, Lsun, celeba, image_folder

PAPER = PRSRConfig.preset("paper")


@pytest.fixture
def data(command):
    """A function that runs ``prsr data`` and returns its exit code, stdout and stderr."""
    return functools.partial(command, "data")


def expected(files):
    """The array that encoded images must be converted to."""
    return np.stack([high_resolution(Image.open(io.BytesIO(file)), PAPER) for file in files])


@pytest.fixture
def celeba_folder(tmp_path, noise_image, encode):
    """Eight images in three splits, with one of each possible problem."""
    folder = tmp_path / "celeba"
    images = folder / "img_align_celeba"
    images.mkdir(parents=True)
    for number in range(1, 9):
        size = (100, 218) if number == 4 else (178, 218)
        (images / f"{number:06}.jpg").write_bytes(encode(noise_image(*size, seed=number), "JPEG"))
    corrupt = images / "000002.jpg"
    corrupt.write_bytes(corrupt.read_bytes()[:3000])
    (images / "000003.jpg").unlink()
    (folder / "list_eval_partition.txt").write_text(
        "".join(f"{n:06}.jpg {s}\n" for n, s in enumerate((0, 0, 0, 0, 0, 1, 2, 2), start=1))
        + "000008.jpg 3\n\nonly-a-name.jpg\n000008.jpg 2 2\n"
    )
    return folder


def test_celeba_is_read_by_its_official_splits(data, celeba_folder, tmp_path):
    images = celeba_folder / "img_align_celeba"
    for split, numbers in (("train", (1, 4, 5)), ("validation", (6,)), ("test", (7, 8))):
        out = tmp_path / f"{split}.npy"
        code, _, errors = data("celeba", celeba_folder, "--split", split, "--out", out)
        assert (code, errors) == (0, "")
        files = [(images / f"{number:06}.jpg").read_bytes() for number in numbers]
        assert np.array_equal(np.load(out), expected(files))
    lr, hr = SuperResolutionImages.open(tmp_path / "test.npy", PAPER).batch([1])
    assert (lr.shape, hr.shape) == ((1, 3, 8, 8), (1, 3, 32, 32))


def test_problems_in_celeba_are_counted_and_named(data, celeba_folder, tmp_path):
    out = tmp_path / "train.npy"
    _, printed, _ = data("celeba", celeba_folder, "--split", "train", "--out", out)
    lines = printed.splitlines()
    assert sum("list_eval_partition.txt, line" in line for line in lines) == 3
    assert "line 9 is not NAME 0, 1 or 2: '000008.jpg 3'" in printed
    assert "skipped 000002.jpg: image file is truncated" in printed
    assert "skipped 000003.jpg: [Errno 2] No such file" in printed
    assert "1 of 3 images are not 178×218 (the first: 000004.jpg of 100×218)" in printed
    assert "unaligned faces" in printed
    assert lines[-1] == f"wrote {out}: 3 images, 2 skipped"


def test_a_few_images_of_another_size_give_no_warning(data, celeba_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("prsr.cli.data.UNALIGNED", 0.4)
    _, printed, _ = data("celeba", celeba_folder, "--split", "train", "--out", tmp_path / "a.npy")
    assert "1 of 3 images are not 178×218" in printed
    assert "warning" not in printed


def test_the_error_for_a_list_without_the_split_names_its_bad_lines(data, celeba_folder, tmp_path):
    (celeba_folder / "list_eval_partition.txt").write_text("image_id,partition\n000001.jpg,0\n")
    code, _, errors = data("celeba", celeba_folder, "--split", "train", "--out", tmp_path / "a.npy")
    assert code == 2
    assert "names no image of the split train; " in errors
    assert "line 1 is not NAME 0, 1 or 2: 'image_id,partition'" in errors


def test_aligned_celeba_gives_no_warning(data, celeba_folder, tmp_path):
    out = tmp_path / "test.npy"
    _, printed, _ = data("celeba", celeba_folder, "--split", "test", "--out", out)
    assert "178×218" not in printed


def test_celeba_in_its_authors_folder_layout_is_found(celeba_folder):
    (celeba_folder / "Img").mkdir()
    (celeba_folder / "Eval").mkdir()
    for name, part in (("img_align_celeba", "Img"), ("list_eval_partition.txt", "Eval")):
        (celeba_folder / name).rename(celeba_folder / part / name)
    found = celeba(celeba_folder, "test")
    assert [image.name for image in found.images_from(0)] == ["000007.jpg", "000008.jpg"]
    assert all(image.source.is_file() for image in found.images_from(0))


@pytest.fixture
def lsun_folder(tmp_path, noise_image, encode):
    """An LMDB like LSUN's: WebP files under hashed keys; one is truncated, one is a JPEG file."""
    import lmdb

    folder = tmp_path / "bedroom_train_lmdb"
    files = {
        f"{seed:040x}": encode(noise_image(60, 50, seed=seed), "WEBP") for seed in (5, 3, 9, 7)
    }
    files[f"{4:040x}"] = encode(noise_image(50, 50, seed=4), "JPEG")
    files[f"{6:040x}"] = files[f"{5:040x}"][:100]
    with lmdb.open(str(folder), map_size=2**24) as environment, environment.begin(write=True) as t:
        for key, value in files.items():
            t.put(key.encode(), value)
    return folder, dict(sorted(files.items()))


def test_lsun_is_read_in_the_order_of_its_keys(data, lsun_folder, tmp_path):
    folder, files = lsun_folder
    code, printed, errors = data("lsun", folder, "--out", tmp_path / "set.npy")
    assert (code, errors) == (0, "")
    assert f"skipped {6:040x}: " in printed
    intact = [file for key, file in files.items() if key != f"{6:040x}"]
    assert np.array_equal(np.load(tmp_path / "set.npy"), expected(intact))
    for start in range(len(files) + 2):
        rest = [(image.name, image.source) for image in Lsun(folder).images_from(start)]
        assert rest == list(files.items())[start:]


def test_a_damaged_lmdb_page_is_reported(data, lsun_folder, tmp_path, monkeypatch):
    folder, _ = lsun_folder
    opened = Lsun(folder)
    file = folder / "data.mdb"
    intact = bytearray(file.read_bytes())
    page = 4096
    for start in range(2 * page, len(intact), page):  # after the two meta pages
        intact[start + 10 : start + 12] = bytes(2)  # an invalid page type
    with file.open("r+b") as damaged:
        damaged.write(intact)
    with pytest.raises(ValueError, match="_lmdb cannot be read as an LMDB: mdb_cursor_get"):
        list(opened.images_from(0))
    monkeypatch.setattr("prsr.cli.data.Lsun", lambda path: opened)
    code, _, errors = data("lsun", folder, "--out", tmp_path / "set.npy")
    assert (code, errors.count("\n")) == (2, 1)
    assert "cannot be read as an LMDB" in errors


def test_a_folder_is_read_recursively_and_in_order(data, tmp_path, noise_image):
    names = ("b.png", "a/d.jpg", "a.webp")
    (tmp_path / "set" / "a").mkdir(parents=True)
    for seed, name in enumerate(names):
        noise_image(40, 50, seed=seed).save(tmp_path / "set" / name)
    out = tmp_path / "set.npy"
    code, _, _ = data("folder", tmp_path / "set", "--out", out)
    assert code == 0
    found = [image.name for image in image_folder(tmp_path / "set").images_from(0)]
    assert found == ["a/d.jpg", "a.webp", "b.png"]
    files = [(tmp_path / "set" / name).read_bytes() for name in found]
    assert np.array_equal(np.load(out), expected(files))


def test_the_preset_determines_size_and_colours(data, tmp_path, noise_image):
    (tmp_path / "set").mkdir()
    noise_image(40, 50, seed=0).save(tmp_path / "set" / "a.png")
    for preset, shape, below in (("digits", (1, 1, 28, 28), 256), ("tiny", (1, 3, 6, 6), 8)):
        out = tmp_path / f"{preset}.npy"
        code, _, _ = data("folder", tmp_path / "set", "--out", out, "--preset", preset)
        assert code == 0
        assert np.load(out).shape == shape
        assert np.load(out).max() < below
        SuperResolutionImages.open(out, PRSRConfig.preset(preset))


@pytest.fixture
def hub_folder(tmp_path, monkeypatch, noise_image, encode):
    """A data set with two splits in Parquet, which `datasets` loads like one of the hub."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    folder = tmp_path / "some-set"
    folder.mkdir()
    files = {
        "train": [encode(noise_image(40, 40, seed=seed), "PNG") for seed in range(4)],
        "test": [encode(noise_image(40, 40, seed=9), "PNG")],
    }
    for split, images in files.items():
        cells = [{"bytes": file, "path": None} for file in images]
        if split == "train":
            cells[1:1] = [None, {"bytes": b"no image", "path": "bad.png"}]
        kinds = datasets.Features({"face": datasets.Image(), "label": datasets.Value("int32")})
        columns = {"face": cells, "label": [0] * len(cells)}
        rows = datasets.Dataset.from_dict(columns, features=kinds)
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder, files


def test_a_data_set_of_the_hub_is_read_by_split(data, hub_folder, tmp_path):
    folder, files = hub_folder
    for split, faults in (("train", 2), ("test", 0)):
        out = tmp_path / f"{split}.npy"
        code, printed, errors = data("hub", folder, "--split", split, "--out", out)
        assert (code, errors) == (0, "")
        assert printed.count("skipped row ") == faults
        assert np.array_equal(np.load(out), expected(files[split]))
    rest = HubDataset(str(folder), "train", "face").images_from(3)
    assert [image.name for image in rest] == ["row 3", "row 4", "row 5"]


def test_a_changed_source_has_another_description(lsun_folder, hub_folder):
    lsun, (hub, _) = lsun_folder[0], hub_folder

    def described():
        source = Lsun(lsun)
        source.environment.close()
        return source.description

    before = described()
    assert described() == before
    os.utime(lsun / "data.mdb", ns=(0, 0))
    assert described() != before

    before = HubDataset(str(hub), "test").description
    assert HubDataset(str(hub), "test").description == before
    (hub / "train-00000-of-00001.parquet").replace(hub / "test-00000-of-00001.parquet")
    assert HubDataset(str(hub), "test").description != before


CASES = {
    "folder without CelebA": ("celeba {empty} --split train -o {out}", "{empty}"),
    "unknown split": ("celeba {celeba} --split 0 -o {out}", "--split"),
    "no split": ("celeba {celeba} -o {out}", "--split"),
    "no LSUN folder": ("lsun {tmp}/no -o {out}", "{tmp}/no"),
    "folder without an LMDB": ("lsun {empty} -o {out}", "{empty}"),
    "text as an LMDB": ("lsun {tmp}/text.txt -o {out}", "text.txt"),
    "no folder": ("folder {tmp}/no -o {out}", "{tmp}/no"),
    "empty folder": ("folder {empty} -o {out}", "{empty}"),
    "unknown split of the hub": ("hub {hub} --split no -o {out}", "'no'"),
    "folder without a data set": ("hub {empty} -o {out}", "{empty}"),
    "column without images": ("hub {hub} --column label -o {out}", "face"),
    "output of another format": ("folder {celeba} -o {tmp}/set.npz", ".npy"),
    "output in no folder": ("folder {celeba} -o {empty}/no/set.npy", "{empty}/no"),
    "output that is there": ("folder {celeba} -o {tmp}/done.npy", "done.npy"),
    "no output": ("folder {celeba}", "--out"),
    "unknown preset": ("folder {celeba} -o {out} --preset no", "--preset"),
}
"""Arguments of ``prsr data``, and what its error must contain."""


@pytest.mark.parametrize("name", CASES)
def test_an_invalid_data_source_gives_a_one_line_error(
    data, celeba_folder, hub_folder, tmp_path, name
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "done.npy").write_text("")
    places = {"tmp": tmp_path, "empty": tmp_path / "empty", "out": tmp_path / "set.npy"}
    places |= {"celeba": celeba_folder, "hub": hub_folder[0]}
    arguments, named = (part.format(**places) for part in CASES[name])
    code, _, errors = data(*shlex.split(arguments))
    assert code == 2
    assert errors.startswith("prsr: ")
    assert errors.count("\n") == 1
    assert named in errors
    assert not list(tmp_path.glob("set.np*"))


@pytest.mark.parametrize(
    ("listed", "named"), [("000001.jpg 0\n", "test"), (None, "list_eval_partition.txt")]
)
def test_a_missing_celeba_list_or_split_gives_a_one_line_error(
    data, celeba_folder, tmp_path, listed, named
):
    path = celeba_folder / "list_eval_partition.txt"
    path.unlink()
    if listed:
        path.write_text(listed)
    out = tmp_path / "set.npy"
    code, _, errors = data("celeba", celeba_folder, "--split", "test", "--out", out)
    assert code == 2
    assert named in errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.glob("set.npy*"))


@pytest.mark.parametrize("module", ["lmdb", "datasets"])
def test_a_missing_dependency_is_reported_with_the_remedy(data, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    kind = "lsun" if module == "lmdb" else "hub"
    code, _, errors = data(kind, tmp_path, "--out", tmp_path / "set.npy")
    assert (code, errors) == (
        2,
        f"prsr: reading this data set needs {module}: pip install 'prsr[data]'\n",
    )


def test_a_truncated_lmdb_is_reported(data, lsun_folder, tmp_path):
    file = lsun_folder[0] / "data.mdb"
    intact = file.read_bytes()
    file.write_bytes(intact[:-4096])
    code, _, errors = data("lsun", lsun_folder[0], "--out", tmp_path / "set.npy")
    assert code == 2
    assert (
        f"data.mdb is truncated: it has {len(intact) - 4096:,} bytes of {len(intact):,}" in errors
    )
