"""The classifier two-sample test."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from prsr import PRSRConfig
from prsr.data.dataset import SuperResolutionImages
from prsr.evaluation.metrics import Interval, confidence_interval
from prsr.evaluation.two_sample import ACCURACY, FOLDS, two_sample_tests, verdicts
from prsr.sampling.method import DeterministicMethod


def noise(seed, n=120, low=0, high=256):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (n, 3, 8, 8), generator=random, dtype=torch.uint8)


def accuracy(right):
    return confidence_interval(right.float().mean(dim=1))


def test_images_of_one_distribution_are_classified_at_chance():
    found = accuracy(verdicts(noise(1), noise(2)))
    assert found.low < 0.5 < found.high


def test_images_of_different_distributions_are_classified_correctly():
    found = accuracy(verdicts(noise(1), noise(2, low=60, high=196)))
    assert found.low > 0.8


def test_a_copy_and_its_original_are_in_the_same_fold():
    # Trained on the copy, a classifier would take the original for a generated image.
    assert accuracy(verdicts(noise(1), noise(1))).mean == 0.5


def test_the_seed_determines_the_result_and_torchs_generator_is_unchanged():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = verdicts(noise(1, 20), noise(2, 20), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(verdicts(noise(1, 20), noise(2, 20), seed=3), one)
    assert one.shape == (20, 2)


def test_shapes_and_numbers_are_checked():
    with pytest.raises(ValueError, match="like real"):
        verdicts(noise(1), noise(1)[:, :1])
    with pytest.raises(ValueError, match=f"at least {FOLDS}"):
        verdicts(noise(1, 4), noise(1, 4))


def test_verdicts_on_a_pair_are_not_independent():
    # Right about exactly one of each pair: the accuracy is 0.5 whichever inputs are drawn.
    class Same(DeterministicMethod):
        config = dataclasses.replace(PRSRConfig.preset("tiny"), low_height=4, low_width=4)

        def enlarge(self, lr):
            return images.batch(slice(None))[1][: len(lr)]

    images = SuperResolutionImages(noise(1, 20).numpy() % 8, Same.config)
    (row,) = two_sample_tests({"same": Same()}, images, [1.0]).images
    assert row.values[ACCURACY] == Interval(0.5, 0.5, 0.5)


@pytest.mark.parametrize("size", [(6, 8), (8, 6), (7, 7), (1, 1)])
def test_images_too_small_for_the_classifier_are_refused_before_any_sampling(size):
    real = torch.zeros(9, 3, *size, dtype=torch.uint8)
    with pytest.raises(ValueError, match="at least 8×8 pixels, got"):
        verdicts(real, real)
    config = PRSRConfig.preset("tiny")  # 6×6 pixels
    images = SuperResolutionImages(np.zeros((9, 3, 6, 6), np.uint8), config)
    with pytest.raises(ValueError, match="at least 8×8 pixels, got 6×6"):
        two_sample_tests({"none": None}, images, [1.0])


def test_one_command_runs_the_test(command, models, data, tmp_path):
    out = tmp_path / "out"
    arguments = ("two-sample", "--data", data, "--model", models["recursive"], "--out", out)
    code, printed, errors = command(
        *arguments, "--temperature", 1, "--temperature", 0.5, "--baseline", "bicubic"
    )
    assert (code, errors) == (0, "")
    assert (out / "table.md").read_text() in printed
    table = json.loads((out / "table.json").read_text())
    rows = [(row["method"], row["temperature"]) for row in table["images"]]
    assert rows == [("bicubic", None), ("recursive", 1.0), ("recursive", 0.5)]
    assert all(list(row["values"]) == [ACCURACY] for row in table["images"])


def test_too_few_images_are_refused_before_any_sampling(command, models, tmp_path):
    np.save(tmp_path / "four.npy", np.zeros((4, 3, 8, 8), np.uint8))
    code, _, errors = command(
        *("two-sample", "--data", tmp_path / "four.npy", "--model", models["recursive"]),
        *("--out", tmp_path / "out"),
    )
    assert code == 2
    assert "at least 5 images" in errors
    assert not (tmp_path / "out").exists()
