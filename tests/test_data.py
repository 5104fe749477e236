"""Images in, arrays out: the paper's order of reductions, splits, and the order of batches."""

import contextlib
import os
import pickle
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from prsr import PRSRConfig
from prsr.data.contact_sheet import contact_sheet
from prsr.data.dataset import EndlessBatches, SuperResolutionImages
from prsr.data.find_files import find_images
from prsr.data.image_files import save_image
from prsr.data.images import (
    centre_crop,
    high_resolution,
    read_image,
    reduce,
    to_array,
    to_pil,
)
from prsr.utils.messages import Notice

COLOUR = PRSRConfig.preset("compact")
TINY = PRSRConfig.preset("tiny")
DIGITS = PRSRConfig.preset("digits")


def noise_image(width, height, mode="RGB", seed=0):
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def test_the_high_resolution_is_a_centre_crop_then_bicubic():
    image = noise_image(70, 50)
    expected = image.crop((10, 0, 60, 50)).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(high_resolution(image, COLOUR), np.asarray(expected).transpose(2, 0, 1))


def test_the_low_resolution_is_bicubic_of_the_high_one():
    hr = high_resolution(noise_image(70, 50), COLOUR)
    image = Image.fromarray(np.ascontiguousarray(hr.transpose(1, 2, 0)))
    expected = np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(reduce(hr[None], COLOUR)[0], expected)


def test_reduced_images_stay_below_the_models_levels():
    edge = np.zeros((1, 3, 12, 12), np.uint8)
    edge[..., :6] = 199  # bicubic goes beyond it before it falls
    assert reduce(edge, PRSRConfig(scale=2)).max() > 199
    assert reduce(edge, PRSRConfig(scale=2, levels=200)).max() == 199


def test_few_levels_are_spread_evenly_and_stay_below_the_top():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(1, 256)).convert("RGB")
    values = to_array(ramp, TINY)[0, 0]
    assert values.min() == 0
    assert values.max() == TINY.levels - 1
    assert np.array_equal(np.unique(values), np.arange(TINY.levels))
    assert np.array_equal(to_array(to_pil(to_array(ramp, TINY), TINY), TINY)[0, 0], values)
    edges = np.zeros((1, 3, 6, 6), np.uint8)
    edges[..., ::2] = TINY.levels - 1
    assert reduce(edges, TINY).max() < TINY.levels


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "I;16", "CMYK", "LA"])
def test_every_mode_of_image_is_read(tmp_path, mode):
    source = noise_image(40, 40, "RGB")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 257)
    else:
        image = source.convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    assert high_resolution(read_image(path, COLOUR), COLOUR).shape == (3, 32, 32)
    assert high_resolution(read_image(path, DIGITS), DIGITS).shape == (1, 28, 28)


def test_images_are_read_the_right_way_up(tmp_path):
    lying = noise_image(40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    lying.save(tmp_path / "phone.png", exif=exif)
    upright = np.asarray(lying.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(np.asarray(read_image(tmp_path / "phone.png", COLOUR)), upright)


def test_images_from_files_and_from_pillow_are_alike(tmp_path):
    deep = Image.fromarray(np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8))
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    for image in (deep, clear, noise_image(8, 8)):
        image.save(tmp_path / "image.png")
        from_file = to_array(read_image(tmp_path / "image.png", COLOUR), COLOUR)
        assert np.array_equal(to_array(image, COLOUR), from_file)


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (high_resolution(read_image(tmp_path / "clear.png", COLOUR), COLOUR) == 255).all()


def test_sixteen_bit_images_keep_their_tones(tmp_path):
    ramp = np.linspace(0, 65535, 40 * 40).astype(np.uint16).reshape(40, 40)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    values = np.asarray(read_image(tmp_path / "deep.png", DIGITS))
    assert np.abs(values.astype(int) - ramp // 257).max() <= 1


def test_a_narrow_image_is_cropped_in_the_middle():
    assert centre_crop(noise_image(100, 10), 1, 1).size == (10, 10)
    assert centre_crop(noise_image(1, 50), 4, 4).size == (1, 1)


def test_folders_are_searched_below_and_in_order(tmp_path):
    for name in ("b.png", "a/c.jpg", "a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        noise_image(9, 9).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.warns(Notice, match=r"1 of no image format that can be read \(notes\.txt\)"):
        found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])]
    assert found == ["a/c.jpg", "a.png", "b.png"]
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "folder.png").mkdir()
    assert len(find_images([tmp_path])) == 3
    assert [path.name for path in find_images([tmp_path], tmp_path / "a")] == ["a.png", "b.png"]
    assert len(find_images([tmp_path / "a"], tmp_path)) == 1
    assert len(find_images([tmp_path], tmp_path)) == 3
    dataset = SuperResolutionImages.open(tmp_path, COLOUR)
    assert len(dataset) == 3
    lr, hr = dataset[1]
    assert (lr.shape, hr.shape) == ((3, 8, 8), (3, 32, 32))
    assert (lr.dtype, hr.dtype) == (torch.uint8, torch.uint8)


def test_an_array_file_is_mapped_and_gives_the_same_pairs(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "set.npy", pixels)
    dataset = SuperResolutionImages.open(tmp_path / "set.npy", COLOUR)
    assert isinstance(dataset.pixels, np.memmap)
    lr, hr = dataset.batch([3, 1])
    assert np.array_equal(hr.numpy(), pixels[[3, 1]])
    assert np.array_equal(lr.numpy(), reduce(pixels[[3, 1]], COLOUR))


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((5, 3, 32, 31), np.uint8), "must hold images"),
        (np.zeros((5, 32, 32, 3), np.uint8), "must hold images"),
        (np.zeros((5, 3, 32, 32), np.float32), "must be uint8"),
        (np.zeros((0, 3, 32, 32), np.uint8), "set.npy holds no images"),
        (np.array([{}], dtype=object), "neither a folder nor a readable"),
    ],
)
def test_an_array_that_does_not_fit_is_told(tmp_path, array, told):
    np.save(tmp_path / "set.npy", array)
    with pytest.raises(ValueError, match=told):
        SuperResolutionImages.open(tmp_path / "set.npy", COLOUR)


def test_an_array_file_that_is_a_pickle_is_not_read(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    (tmp_path / "set.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="neither a folder nor a readable"):
        SuperResolutionImages.open(tmp_path / "set.npy", COLOUR)
    assert not (tmp_path / "exploded").exists()


def test_levels_above_the_models_are_told(tmp_path):
    np.save(tmp_path / "set.npy", np.full((2, 3, 6, 6), 8, np.uint8))
    with pytest.raises(ValueError, match="below 8"):
        SuperResolutionImages.open(tmp_path / "set.npy", TINY)


def test_unreadable_data_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder or array file"):
        SuperResolutionImages.open(tmp_path / "nowhere", COLOUR)
    with pytest.raises(FileNotFoundError, match="no image in folder"):
        SuperResolutionImages.open(tmp_path, COLOUR)
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY\x01")
    with pytest.raises(ValueError, match=r"torn\.npy"):
        SuperResolutionImages.open(tmp_path / "torn.npy", COLOUR)
    noise_image(64, 64).save(tmp_path / "good.png")
    (tmp_path / "torn.npy").unlink()
    whole = (tmp_path / "good.png").read_bytes()
    for name, data in (("cut.png", whole[: len(whole) // 2]), ("text.png", b"hello")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} cannot be read .* `prsr data folder` makes"):
            SuperResolutionImages.open(tmp_path, COLOUR)
        (tmp_path / name).unlink()


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_a_header_that_is_damaged_anywhere_is_told(tmp_path):
    path = tmp_path / "set.npy"
    np.save(path, np.zeros((2, 3, 32, 32), np.uint8))
    whole = path.read_bytes()
    for place in range(128):
        for byte in (b"\\", b"(", b"\x00", b"9"):
            path.write_bytes(whole[:place] + byte + whole[place + 1 :])
            with contextlib.suppress(ValueError):  # of our own; some damage changes nothing
                SuperResolutionImages.open(path, COLOUR)


def test_the_fingerprint_tells_sets_apart():
    pixels = np.random.default_rng(0).integers(0, 256, (100, 3, 32, 32), dtype=np.uint8)
    prints = [
        SuperResolutionImages(some, COLOUR).fingerprint()
        for some in (pixels, pixels[:99], pixels[::-1], 255 - pixels)
    ]
    assert len(set(prints)) == 4
    assert SuperResolutionImages(pixels.copy(), COLOUR).fingerprint() == prints[0]


def test_a_split_is_disjoint_whole_and_repeatable():
    pixels = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 32, 32), np.uint8)
    dataset = SuperResolutionImages(pixels, COLOUR)
    train, held = dataset.split(6, seed=3)
    numbers = [set(part.pixels[:][:, 0, 0, 0].tolist()) for part in (train, held)]
    assert numbers[0] | numbers[1] == set(range(20))
    assert (len(numbers[0]), len(numbers[1])) == (14, 6)
    again = dataset.split(6, seed=3)[1].pixels[:]
    assert np.array_equal(again, held.pixels[:])
    assert np.array_equal(held.batch([1, 4])[1], again[[1, 4]])
    assert not np.array_equal(dataset.split(6, seed=4)[1].pixels[:], again)
    with pytest.raises(ValueError, match="two images at least"):
        SuperResolutionImages(pixels[:1], COLOUR).split(1)
    for bad in (0, 20):
        with pytest.raises(ValueError, match="held_out"):
            dataset.split(bad)


def test_a_split_reads_no_image():
    class Unread(np.ndarray):
        def __getitem__(self, index):
            raise AssertionError("it was read")

    pixels = np.zeros((20, 3, 32, 32), np.uint8).view(Unread)
    train, held = SuperResolutionImages(pixels, COLOUR).split(6)
    assert (len(train), len(held)) == (14, 6)
    with pytest.raises(AssertionError, match="it was read"):
        held.batch([0])


def test_batches_go_through_every_image_once_an_epoch_and_resume_anywhere():
    batches = list(islice(EndlessBatches(10, 4, seed=1), 10))
    flat = [index for batch in batches for index in batch]
    for epoch in range(4):
        assert sorted(flat[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert flat[:10] != flat[10:20]
    for start in (1, 3, 7):
        assert list(islice(EndlessBatches(10, 4, 1, start), 3)) == batches[start : start + 3]
    assert list(islice(EndlessBatches(10, 4, 2), 3)) != batches[:3]


def test_processes_share_a_batch_without_overlap():
    whole = list(islice(EndlessBatches(11, 6, 0), 5))
    parts = [list(islice(EndlessBatches(11, 6, 0, 0, rank, 2), 5)) for rank in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert sorted(shares[0] + shares[1]) == sorted(batch)


def test_a_contact_sheet_shows_each_image_in_its_place():
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    sheet = contact_sheet([[red, blue], [blue, red]], ["one", "two"], cell=40)
    colours = [
        [sheet.getpixel((6 + 46 * column + 20, 22 + 46 * row + 20)) for column in range(2)]
        for row in range(2)
    ]
    red, blue = (255, 0, 0), (0, 0, 255)
    assert colours == [[red, blue], [blue, red]]


def test_an_image_is_saved_by_suffix_or_not_at_all(tmp_path):
    save_image(noise_image(4, 4), tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (4, 4)
    with pytest.raises(ValueError, match="must end like an image"):
        save_image(noise_image(4, 4), tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
