"""What an image needs at least, and the bounds that follow."""

from __future__ import annotations

import pytest

from benchmarks.bounds import (
    Limits,
    Part,
    bounds,
    conditioning_multiply_adds,
    count_work,
    draw_bound,
    streamed_bytes,
)
from prsr import PRESETS, PRSR
from prsr.engines.grouped_weights import pack_prior


@pytest.fixture(scope="module")
def paper():
    return count_work(pack_prior(PRSR(PRESETS["paper"]).prior))


def test_needed_multiply_adds_of_the_paper_are_those_of_spec(paper):
    first, blocks, links = 32 * 3 * 3 * 7, 20 * 64 * 32 * 3 * 5, 20 * 64 * 64
    assert (blocks, links) == (614_400, 81_920)
    assert paper["vertical"].multiply_adds == first + blocks + links
    # Groups of 11, 11 and 10 features read 11, 22 and 32; so do groups of 342, 341 and 341 units.
    mix = 11 * 11 + 11 * 22 + 10 * 32
    own = 11 * 1 + 10 * 2
    assert paper["horizontal"].multiply_adds == 20 * (64 * 64 + 3 * mix) + 32 * 9 + own
    hidden = 342 * 11 + 341 * 22 + 341 * 32
    assert paper["head"].multiply_adds == hidden + 256 * (342 + 683 + 1024)
    total = sum(part.multiply_adds for part in paper.values())
    assert 2 * 1024 * total == pytest.approx(2.8e9, rel=0.01)


def test_weights_of_hidden_units_that_are_zero_need_no_work(paper):
    needed = count_work(pack_prior(PRSR(PRESETS["paper"]).prior), 0.25)
    assert {name: needed[name] for name in ("vertical", "horizontal")} == {
        name: paper[name] for name in ("vertical", "horizontal")
    }
    hidden = 342 * 11 + 341 * 22 + 341 * 32
    output = round(342 / 4) + round(683 / 4) + 1024 // 4
    assert needed["head"].multiply_adds == hidden + 256 * output
    assert needed["head"].bytes == 4 * (needed["head"].multiply_adds + 1024 + 768)


def test_multiply_adds_of_the_conditioning_network_of_the_paper():
    network = PRSR(PRESETS["paper"]).conditioning
    block, doubling = 2 * 32 * 32 * 9, 32 * 32 * 9
    pixels = 64
    expected = 3 * 32 * pixels  # the first layer, 1×1
    for stage in range(3):
        expected += 6 * block * pixels
        if stage < 2:
            expected += doubling * pixels
            pixels *= 4
    expected += 32 * 768 * pixels
    assert conditioning_multiply_adds(network, 64) == expected


def test_bytes_that_a_pixel_streams_are_its_weights_and_biases(paper):
    assert paper["head"].bytes == 4 * (paper["head"].multiply_adds + 1024 + 768)
    assert streamed_bytes(paper) == paper["horizontal"].bytes + paper["head"].bytes
    assert streamed_bytes(paper) == pytest.approx(2.65e6, rel=0.02)


def test_every_unmasked_weight_of_a_small_prior_is_counted_once(make_model):
    model = make_model()
    parts = count_work(pack_prior(model.prior))
    weights = sum(
        int(getattr(layer, "mask", layer.weight == layer.weight).sum())
        for layer in model.prior.modules()
        if hasattr(layer, "weight")
    )
    assert sum(part.multiply_adds for part in parts.values()) == weights


def test_bound_is_bandwidth_for_one_image_and_arithmetic_for_many():
    parts = {"vertical": Part(10, 40), "horizontal": Part(20, 80), "head": Part(30, 120)}
    limits = Limits(peak=2.0, bandwidth=1.0)  # one multiply-add or one byte a second
    assert bounds(parts, limits, 7, 1) == {"vertical": 70, "horizontal": 560, "head": 840}
    assert bounds(parts, limits, 7, 2) == {"vertical": 70, "horizontal": 280, "head": 420}
    assert bounds(parts, limits, 7, 64) == {"vertical": 70, "horizontal": 140, "head": 210}
    assert draw_bound(PRESETS["tiny"], limits, 7) == 7 * 9 * 8 * 3
