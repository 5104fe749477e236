"""Data sets: folders and array files, splits, and the order of batches."""

import contextlib
import os
import pickle
import re
from itertools import islice

import numpy as np
import pytest
import torch

from prsr import PRSRConfig
from prsr.data.dataset import EndlessBatches, SuperResolutionImages
from prsr.data.image_arrays import reduce

COLOUR = PRSRConfig.preset("compact")


TINY = PRSRConfig.preset("tiny")


def test_a_folder_gives_a_pair_for_each_image(tmp_path, noise_image):
    for name in ("a.png", "b.png", "c.png"):
        noise_image(9, 9).save(tmp_path / name)
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
    ("array", "message"),
    [
        (np.zeros((5, 3, 32, 31), np.uint8), "must hold images"),
        (np.zeros((5, 32, 32, 3), np.uint8), "must hold images"),
        (np.zeros((5, 3, 32, 32), np.float32), "must be uint8"),
        (np.zeros((0, 3, 32, 32), np.uint8), "set.npy holds no images"),
        (np.array([{}], dtype=object), "neither a folder nor a readable"),
    ],
)
def test_an_unsuitable_array_is_refused(tmp_path, array, message):
    np.save(tmp_path / "set.npy", array)
    with pytest.raises(ValueError, match=message):
        SuperResolutionImages.open(tmp_path / "set.npy", COLOUR)


def test_a_pickled_array_file_is_not_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    (tmp_path / "set.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="neither a folder nor a readable"):
        SuperResolutionImages.open(tmp_path / "set.npy", COLOUR)
    assert not (tmp_path / "exploded").exists()


def test_levels_above_the_models_are_refused(tmp_path):
    np.save(tmp_path / "set.npy", np.full((2, 3, 6, 6), 8, np.uint8))
    with pytest.raises(ValueError, match="below 8"):
        SuperResolutionImages.open(tmp_path / "set.npy", TINY)
    pixels = np.zeros((2, 3, 6, 6), np.uint8)
    pixels[1, 2, 3, 4] = 8
    with pytest.raises(ValueError, match=r"^pixels must hold values below 8 .*, got 8"):
        SuperResolutionImages(pixels, TINY)
    pixels[1, 2, 3, 4] = 7
    assert len(SuperResolutionImages(pixels, TINY).split(1)[0]) == 1


def test_unreadable_data_is_reported(tmp_path, noise_image):
    with pytest.raises(FileNotFoundError, match="no such folder or array file"):
        SuperResolutionImages.open(tmp_path / "nowhere", COLOUR)
    with pytest.raises(FileNotFoundError, match="no image in folder"):
        SuperResolutionImages.open(tmp_path, COLOUR)
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY\x01")
    with pytest.raises(ValueError, match=r"torn\.npy"):
        SuperResolutionImages.open(tmp_path / "torn.npy", COLOUR)
    noise_image(64, 64).save(tmp_path / "good.png")
    (tmp_path / "torn.npy").unlink()
    intact = (tmp_path / "good.png").read_bytes()
    for name, data in (("cut.png", intact[: len(intact) // 2]), ("text.png", b"hello")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} cannot be read .* `prsr data folder` makes"):
            SuperResolutionImages.open(tmp_path, COLOUR)
        (tmp_path / name).unlink()


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_a_damaged_header_raises_no_other_error_than_value_error(tmp_path):
    path = tmp_path / "set.npy"
    np.save(path, np.zeros((2, 3, 32, 32), np.uint8))
    intact = path.read_bytes()
    for place in range(128):
        for byte in (b"\\", b"(", b"\x00", b"9"):
            path.write_bytes(intact[:place] + byte + intact[place + 1 :])
            with contextlib.suppress(ValueError):  # ours; some damage has no effect
                SuperResolutionImages.open(path, COLOUR)


def test_fingerprints_of_different_data_sets_differ():
    pixels = np.random.default_rng(0).integers(0, 256, (100, 3, 32, 32), dtype=np.uint8)
    prints = [
        SuperResolutionImages(some, COLOUR).fingerprint()
        for some in (pixels, pixels[:99], pixels[::-1], 255 - pixels)
    ]
    assert len(set(prints)) == 4
    assert SuperResolutionImages(pixels.copy(), COLOUR).fingerprint() == prints[0]


def test_a_split_is_disjoint_complete_and_repeatable():
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
    with pytest.raises(ValueError, match="at least two images"):
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


def test_batches_cover_every_image_once_per_epoch_and_resume_anywhere():
    batches = list(islice(EndlessBatches(10, 4, seed=1), 10))
    flat = [index for batch in batches for index in batch]
    for epoch in range(4):
        assert sorted(flat[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert flat[:10] != flat[10:20]
    for start in (1, 3, 7):
        assert list(islice(EndlessBatches(10, 4, 1, start), 3)) == batches[start : start + 3]
    assert list(islice(EndlessBatches(10, 4, 2), 3)) != batches[:3]


def test_processes_share_a_batch_without_overlap():
    batches = list(islice(EndlessBatches(11, 6, 0), 5))
    parts = [list(islice(EndlessBatches(11, 6, 0, 0, rank, 2), 5)) for rank in range(2)]
    for batch, *shares in zip(batches, *parts, strict=True):
        assert sorted(shares[0] + shares[1]) == sorted(batch)


@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (np.zeros((5, 3, 32, 32), np.float32), TypeError, "uint8, got float32"),
        (np.zeros((5, 3, 32, 32), np.int8), TypeError, "uint8, got int8"),
        ([[0]], TypeError, "uint8, got list"),
        (np.zeros((3, 32, 32), np.uint8), ValueError, "got [3, 32, 32]"),
        (np.zeros(5, np.uint8), ValueError, "got [5]"),
        (np.zeros((5, 32, 32, 3), np.uint8), ValueError, "must be [N, 3, 32, 32]"),
        (np.zeros((5, 3, 32, 31), np.uint8), ValueError, "got [5, 3, 32, 31]"),
        (np.zeros((0, 3, 32, 32), np.uint8), ValueError, "hold none"),
    ],
)
def test_arrays_that_are_not_images_of_the_model_are_refused(pixels, error, message):
    with pytest.raises(error, match=f"pixels .*{re.escape(message)}"):
        SuperResolutionImages(pixels, COLOUR)


def test_images_of_any_size_stay_so_in_subsets():
    images = SuperResolutionImages(np.zeros((5, 3, 40, 50), np.uint8), COLOUR, any_size=True)
    assert [len(part) for part in (*images.split(2), images.first(3))] == [3, 2, 3]
    with pytest.raises(ValueError, match="pixels must be"):
        SuperResolutionImages(np.zeros((5, 1, 40, 50), np.uint8), COLOUR, any_size=True)


def test_a_count_that_selects_no_image_is_refused():
    images = SuperResolutionImages(np.zeros((5, 3, 32, 32), np.uint8), COLOUR)
    assert len(images.first(np.int64(2))) == 2
    for count in (0, -1):
        with pytest.raises(ValueError, match="count must be from 1"):
            images.first(count)
    with pytest.raises(TypeError, match="count must be an integer"):
        images.first(1.5)
