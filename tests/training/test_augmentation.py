"""Random crops and flips: Pillow's values, the documented ranges, no state between steps."""

import dataclasses
import json
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from prsr import PRSRConfig
from prsr.data.dataset import EndlessBatches, SuperResolutionImages
from prsr.data.image_arrays import reduce
from prsr.training.augmentation import (
    augment,
    augmented_batches,
    crop_boxes,
    is_mirrored,
    random_words,
)
from prsr.training.bicubic import low_resolution, resize
from prsr.training.loop import RunPlan, train
from prsr.training.trainer import Trainer, TrainSettings

COLOUR = PRSRConfig.preset("compact")
TINY = PRSRConfig.preset("tiny")


def images(n, height, width, channels=3, levels=256, seed=0):
    """Images, half of them noise and half with hard edges, where bicubic overshoots."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, levels, (n, channels, height, width), dtype=np.uint8)
    pixels[n // 2 :] = (pixels[n // 2 :] >= levels // 2) * (levels - 1)
    return pixels


def pillow(pixels, size, box):
    """One image, ``uint8 [D, H, W]``, resized by Pillow plane by plane."""
    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in pixels]
    how = Image.Resampling.BICUBIC
    return np.stack([np.asarray(plane.resize(size[::-1], how, box=box)) for plane in planes])


@pytest.mark.parametrize(
    ("source", "size"),
    [((84, 84), (32, 32)), ((32, 32), (8, 8)), ((41, 57), (32, 20)), ((7, 9), (20, 31))],
)
def test_resizing_gives_the_values_of_pillow(source, size):
    pixels, rng = images(60, *source), np.random.default_rng(1)
    sides = rng.uniform(0.3, 1.0, (60, 2)) * source[::-1]
    corners = rng.uniform(0, 1, (60, 2)) * (np.array(source[::-1]) - sides)
    limits = np.array(source[::-1] * 2, np.float32)
    boxes = np.minimum(np.hstack((corners, corners + sides)).astype(np.float32), limits)
    resized = resize(torch.from_numpy(pixels), size, torch.from_numpy(boxes)).numpy()
    uncropped = resize(torch.from_numpy(pixels), size).numpy()
    for i, box in enumerate(boxes.tolist()):
        assert np.array_equal(resized[i], pillow(pixels[i], size, tuple(box)))
        assert np.array_equal(uncropped[i], pillow(pixels[i], size, None))


@pytest.mark.parametrize("config", [COLOUR, TINY, PRSRConfig.preset("digits")])
def test_low_resolution_images_equal_those_of_the_data_set(config):
    size = config.scale * config.low_height, config.scale * config.low_width
    hr = images(20, *size, config.channels, config.levels)
    low = low_resolution(torch.from_numpy(hr), config)
    assert np.array_equal(low.numpy(), reduce(hr, config))


def test_crops_have_the_documented_sides_and_uniform_positions():
    words = random_words(torch.arange(20_000), step=3, seed=5)
    left, top, right, bottom = crop_boxes(words, (84, 84), (32, 32)).double().T
    sides = right - left
    assert torch.allclose(sides, bottom - top, atol=1e-4)
    assert 0.84 * 84 - 1e-4 <= float(sides.min()) < 0.841 * 84
    assert 0.949 * 84 < float(sides.max()) <= 0.95 * 84 + 1e-4
    assert float(sides.mean()) == pytest.approx(0.895 * 84, abs=0.1)
    for start, end in ((left, right), (top, bottom)):
        assert float(start.min()) >= 0
        assert float(end.max()) <= 84
        place = start / (84 - sides)  # uniform for any side
        assert float(place.mean()) == pytest.approx(0.5, abs=0.01)
        assert float(place.var()) == pytest.approx(1 / 12, abs=0.003)
    mirrored = is_mirrored(words).double()
    numbers = torch.stack((sides, left / (84 - sides), top / (84 - sides), mirrored))
    assert float((torch.corrcoef(numbers) - torch.eye(4)).abs().max()) < 0.03
    assert float(is_mirrored(words).double().mean()) == pytest.approx(0.5, abs=0.02)


def test_crops_have_the_proportions_of_the_model():
    boxes = crop_boxes(random_words(torch.arange(500), 0, 0), (60, 200), (20, 40)).double()
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    assert torch.allclose(width, 2 * height, atol=1e-4)
    assert 0.84 * 60 - 1e-4 <= float(height.min()) < float(height.max()) <= 0.95 * 60 + 1e-4
    assert float(boxes[:, 2].max()) > 180


def test_an_image_is_cropped_as_by_pillow_then_mirrored():
    pixels, indices = images(40, 84, 84), torch.arange(100, 140)
    words = random_words(indices, 7, 2)
    boxes, mirrored = crop_boxes(words, (84, 84), (32, 32)).tolist(), is_mirrored(words).tolist()
    assert {True, False} == set(mirrored)
    hr = augment(torch.from_numpy(pixels), indices, 7, 2, COLOUR).numpy()
    for image, pixel, box, mirror in zip(hr, pixels, boxes, mirrored, strict=True):
        cropped = pillow(pixel, (32, 32), tuple(box))
        assert np.array_equal(image, cropped[:, :, ::-1] if mirror else cropped)


def test_an_image_of_the_models_size_is_only_mirrored():
    pixels = images(40, 32, 32)
    order = EndlessBatches(40, 40, seed=0)
    lr, hr = next(augmented_batches(SuperResolutionImages(pixels, COLOUR, any_size=True), order, 0))
    indices = next(iter(order))
    mirrored = is_mirrored(random_words(torch.tensor(indices), 0, 0))
    for index, mirror, low, high in zip(indices, mirrored, lr, hr, strict=True):
        expected = pixels[index, :, :, ::-1] if mirror else pixels[index]
        assert np.array_equal(high, expected)
        assert np.array_equal(low, reduce(np.ascontiguousarray(expected)[None], COLOUR)[0])


def test_values_stay_below_the_models_levels():
    config = dataclasses.replace(TINY, levels=200)
    pixels = torch.zeros(30, 3, 12, 12, dtype=torch.uint8)
    pixels[..., :6] = 199
    assert int(augment(pixels, torch.arange(30), 0, 0, config).max()) == 199
    full = dataclasses.replace(TINY, levels=256)
    assert int(augment(pixels, torch.arange(30), 0, 0, full).max()) > 199


def test_a_crop_depends_on_seed_step_and_index_only():
    pixels, indices = torch.from_numpy(images(12, 84, 84)), torch.arange(12)
    expected = augment(pixels, indices, 4, 9, COLOUR)
    some = torch.tensor([7, 2, 11])
    assert torch.equal(augment(pixels[some], some, 4, 9, COLOUR), expected[some])
    far = 4 + 2**32  # the upper 32 bits of a step count too
    for other in ((indices, 5, 9), (indices, far, 9), (indices, 4, 8), (indices + 12, 4, 9)):
        same = (augment(pixels, *other, COLOUR) == expected).flatten(1).all(1)
        assert not bool(same.any())


def test_batches_resume_anywhere_and_are_split_between_processes():
    data = SuperResolutionImages(images(10, 84, 84), COLOUR, any_size=True)

    def batches(count, *order):
        return list(islice(augmented_batches(data, EndlessBatches(10, 4, 1, *order), 1), count))

    expected = batches(6)
    for resumed, uninterrupted in zip(batches(3, 3), expected[3:], strict=True):
        assert all(map(torch.equal, resumed, uninterrupted))
    for (lr, hr), *parts in zip(expected, batches(6, 0, 0, 2), batches(6, 0, 1, 2), strict=True):
        for rank, part in enumerate(parts):
            assert torch.equal(part[0], lr[rank::2])
            assert torch.equal(part[1], hr[rank::2])
        assert np.array_equal(lr, reduce(hr.numpy(), COLOUR))
    assert not torch.equal(expected[0][1], batches(1, 0, 0, 1)[0][1][[1, 0, 2, 3]])


def test_images_resident_on_the_device_give_the_same_pairs():
    data, cpu = (
        SuperResolutionImages(images(10, 84, 84), COLOUR, any_size=True),
        torch.device("cpu"),
    )
    order = EndlessBatches(10, 4, 1, 2)
    pairs = islice(augmented_batches(data, order, 1), 5)
    kept = augmented_batches(data, order, 1, cpu)
    for pair, other in zip(pairs, kept, strict=False):
        assert all(map(torch.equal, pair, other))


SETTINGS = TrainSettings(TINY, batch_size=4, learning_rate=2e-3, augment=True)


def tiny(count=24, side=12, seed=0):
    return SuperResolutionImages(
        images(count, side, side, levels=8, seed=seed), TINY, any_size=True
    )


def run(folder, steps, *, settings=SETTINGS, resume=False):
    plan = RunPlan(folder, steps, 4, sheet_images=2)
    held = tiny(6, 6, seed=1)
    return train(settings, plan, tiny(), held, torch.device("cpu"), resume=resume)


def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(tmp_path):
    run(tmp_path / "whole", 12)
    run(tmp_path / "parts", 4)
    run(tmp_path / "parts", 12, resume=True)
    whole, parts = (
        load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_training_steps_get_augmented_images(tmp_path, monkeypatch):
    seen, step = [], Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda *a: seen.append(a[1:]) or step(*a))
    run(tmp_path, 2)
    run(tmp_path, 4, resume=True)
    settings = SETTINGS.batch_size, SETTINGS.seed
    expected = augmented_batches(tiny(), EndlessBatches(24, *settings), SETTINGS.seed)
    for pair, found in zip(islice(expected, 4), seen, strict=True):
        assert all(map(torch.equal, pair, found))


def test_validation_is_not_augmented(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "prsr.training.loop.mean_metrics", lambda model, data: seen.append(data) or {"x": 1.0}
    )
    run(tmp_path, 1)
    lr, hr = seen[0].batch(slice(None))
    assert np.array_equal(hr, tiny(6, 6, seed=1).pixels)
    assert np.array_equal(lr, reduce(hr.numpy(), TINY))


def test_augmentation_is_a_setting_that_a_resumed_run_keeps(tmp_path):
    plain = dataclasses.replace(SETTINGS, augment=False)
    plan = RunPlan(tmp_path, 4, 4, sheet_images=2)
    small, device = tiny(side=6), torch.device("cpu")
    train(plain, plan, small, small, device)
    with pytest.raises(ValueError, match="was trained with augment = False, not True"):
        train(SETTINGS, RunPlan(tmp_path, 8), small, small, device, resume=True)
    path = tmp_path / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["prsr"])
    del about["settings"]["augment"]  # as in runs older than this setting
    save_file(load_file(path), path, {"prsr": json.dumps(about)})
    train(plain, RunPlan(tmp_path, 5), small, small, device, resume=True)


@pytest.fixture
def request_of(tmp_path):
    """A function that gives the arguments of a training on one of three arrays."""
    for name, size in {"large": (), "small": (6, 6), "between": (6, 7)}.items():
        np.save(tmp_path / f"{name}.npy", tiny(*size).pixels)
    common = ("train", "--preset", "tiny", "--device", "cpu", "--steps", 2, "--batch-size", 4)

    def request(name, out, *options):
        more = [tmp_path / each if str(each).endswith(".npy") else each for each in options]
        return (*common, "--data", tmp_path / name, "--out", tmp_path / out, *more)

    return request


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("large.npy", ("--validation", "small.npy"), "--augment"),
        ("large.npy", ("--augment",), "--validation"),
        ("between.npy", ("--augment", "--validation", "small.npy"), "7×7"),
    ],
)
def test_sizes_that_do_not_match_are_refused(command, request_of, tmp_path, name, options, named):
    code, _, errors = command(*request_of(name, "no", *options))
    assert code == 2
    assert named in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("name", "options"), [("large.npy", ("--validation", "small.npy")), ("small.npy", ())]
)
def test_the_command_crops_larger_images(command, request_of, tmp_path, name, options):
    assert command(*request_of(name, "run", "--augment", *options))[0] == 0
    with safe_open(tmp_path / "run" / "checkpoint.safetensors", "pt") as file:
        assert json.loads(file.metadata()["prsr"])["settings"]["augment"] is True
