"""The noise: Philox's published test vectors, and independence between images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from prsr import noise
from prsr.sampling.noise import philox, uniform

MOST = 0xFFFFFFFF


# Known-answer vectors of Random123 (kat_vectors, philox4x32, 10 rounds): counter, key, result.
@pytest.mark.parametrize(
    ("counter", "key", "result"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((MOST,) * 4, (MOST,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_vectors(counter, key, result):
    words = philox(tuple(map(torch.tensor, counter)), key[0] | key[1] << 32)
    assert words.tolist() == list(result)


def test_philox_treats_each_counter_of_a_tensor_independently():
    values = torch.arange(5)
    zero = torch.tensor(0)
    together = philox((values, zero, zero, values), 7)
    assert together.shape == (5, 4)
    for value, words in zip(values, together, strict=True):
        assert torch.equal(philox((value, zero, zero, value), 7), words)


def test_uniform_stays_inside_the_interval_at_the_extreme_words():
    low, high = uniform(torch.tensor([0, MOST])).tolist()
    assert low == 2.0**-24
    assert high == 1 - 2.0**-24


def test_uniform_takes_the_upper_23_bits_of_a_word():
    words = torch.tensor([0x80000000, 0x800001FF, 0x80000200, 0x123456789 & MOST])
    expected = [(int(word) // 512 + 0.5) / 2**23 for word in words]
    assert uniform(words).dtype == torch.float32
    assert uniform(words).tolist() == expected


def test_noise_is_the_philox_stream_in_the_order_y_x_colour():
    seed, image, which = 0x1234567890ABCDEF, 2**33 + 5, 3
    values = noise(seed, 1, 2, 3, 3, image, sample=which)
    counter = (torch.arange(5), *map(torch.tensor, (image & MOST, image >> 32, which)))
    stream = uniform(philox(counter, seed)).flatten()
    assert values.shape == (1, 2, 3, 3)
    assert torch.equal(values.flatten(), stream[:18])


@pytest.mark.parametrize("which", [0, 1, 7])
def test_image_noise_depends_only_on_its_own_index(which):
    batch = noise(5, 6, 3, 4, 3, 10, sample=which)
    for i in range(6):
        assert torch.equal(batch[i : i + 1], noise(5, 1, 3, 4, 3, 10 + i, sample=which))
    shards = [noise(5, 2, 3, 4, 3, 10, sample=which), noise(5, 4, 3, 4, 3, 12, sample=which)]
    assert torch.equal(batch, torch.cat(shards))


def test_noise_differs_between_seeds_images_and_samples():
    streams = [
        noise(seed, 1, 2, 2, 3, image, sample=which).flatten()
        for seed in (0, 1, 2**32, 2**64 - 1)
        for image in (0, 1, 2**32, 2**32 + 1, 2**63 - 2)
        for which in (0, 1, 2**32 - 1)
    ]
    assert len(torch.stack(streams).unique(dim=0)) == len(streams)


def test_noise_has_the_moments_of_the_uniform_distribution():
    values = noise(0, 40, 32, 32, 3).flatten().double().numpy()
    n = len(values)
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    # Five standard errors of the mean, of the variance, and of a correlation.
    assert abs(values.mean() - 1 / 2) < 5 * (1 / 12 / n) ** 0.5
    assert abs(values.var() - 1 / 12) < 5 * (1 / 180 / n) ** 0.5
    for lag in (1, 2, 3, 4, 96, 3072):
        correlation = np.corrcoef(values[:-lag], values[lag:])[0, 1]
        assert abs(correlation) < 5 / n**0.5


@pytest.mark.parametrize("axis", ["seed", "image", "sample"])
def test_noise_of_adjacent_seeds_images_and_samples_is_uncorrelated(axis):
    streams = {
        "seed": lambda i: noise(i, 1, 32, 32, 3),
        "image": lambda i: noise(0, 1, 32, 32, 3, i),
        "sample": lambda i: noise(0, 1, 32, 32, 3, sample=i),
    }[axis]
    first, second = (torch.cat([streams(i + j) for i in range(20)]).flatten() for j in (0, 1))
    correlation = torch.corrcoef(torch.stack((first, second)))[0, 1]
    assert abs(correlation) < 5 / len(first) ** 0.5


def test_noise_of_zero_images_is_empty():
    assert noise(0, 0, 4, 4, 3).shape == (0, 4, 4, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("seed", 2**64),
        ("n", -1),
        ("first_index", -1),
        ("first_index", 2**63 - 1),
        ("sample", -1),
        ("sample", 2**32),
        ("height", -1),
        ("width", -1),
        ("channels", -1),
    ],
)
def test_argument_out_of_range_is_refused_by_name(name, value):
    arguments = {"seed": 0, "n": 2, "height": 2, "width": 2, "channels": 3}
    with pytest.raises(ValueError, match=f"^{name} must be from 0 to"):
        noise(**arguments | {name: value})


@pytest.mark.parametrize("name", ["seed", "n", "first_index", "sample", "height"])
@pytest.mark.parametrize("value", [1.0, "1", None, True])
def test_non_integer_argument_is_refused_by_name(name, value):
    arguments = {"seed": 0, "n": 2, "height": 2, "width": 2, "channels": 3}
    with pytest.raises(TypeError, match=f"^{name} must be an integer"):
        noise(**arguments | {name: value})


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint64])
def test_numpy_integers_are_accepted_like_python_integers(kind):
    """Also those whose product would overflow their type."""
    expected = noise(7, 1, 32, 32, 3, 2, sample=1)
    sizes = (kind(1), kind(32), kind(32), kind(3), kind(2))
    assert torch.equal(noise(kind(7), *sizes, sample=kind(1)), expected)
