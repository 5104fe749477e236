"""Which kernels serve a GPU, computed from its properties: no GPU is needed."""

from __future__ import annotations

import pytest

import prsr
from prsr.engines.cuda_formats import PRECISIONS
from prsr.engines.cuda_layout import Variant
from prsr.engines.cuda_plan import Card, Planner
from prsr.info import cuda_variants, environment_tables
from tests.engines.emulated import EMULATION, emulated

pytestmark = EMULATION


def card(multiprocessors, kib, clusters=()):
    """A GPU with so many multiprocessors, KiB of shared memory per block, and clusters by size."""
    sizes = {1: multiprocessors, **dict(clusters)}
    return Card(
        multiprocessors, 1024 * kib, lambda precision, cluster, shared: sizes.get(cluster, 0)
    )


H100 = card(132, 227, {16: 8, 8: 16, 4: 33, 2: 66})
WITHOUT_16 = card(132, 227, {8: 16, 4: 33, 2: 66})
A100 = card(108, 163)
DESKTOP = card(128, 99)


TWO_LEVELS = prsr.PRSRConfig(channels=1, levels=2, prior_channels=33)


def planner(extension, card, model="paper", precision="bf16"):
    config = prsr.PRSRConfig.preset(model) if isinstance(model, str) else model
    return Planner(extension, card, Variant.of(config, precision))


@pytest.mark.parametrize(
    ("card", "images", "expected"),
    [
        # A cluster of 16 for a tile each while there are enough, then tiles share 8.
        *((H100, n, plan) for n, plan in {1: (16, 1), 128: (16, 1), 129: (8, 1)}.items()),
        *(
            (H100, n, plan)
            for n, plan in {132: (8, 1), 257: (8, 2), 2048: (8, 8), 5000: (8, 8)}.items()
        ),
        (WITHOUT_16, 1, (8, 1)),
        (A100, 1, (1, 1)),
        (A100, 5000, (1, 1)),
    ],
)
def test_a_plan_uses_what_the_device_has(extension, card, images, expected):
    plan = planner(extension, card).plan(images, 32)
    assert (plan.cluster, plan.tiles) == expected
    assert plan.shared_loads == (images > card.multiprocessors)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("preset", ["paper", "paper-64", "digits"])
def test_shared_memory_fits_every_gpu(extension, preset, precision):
    """99 KiB is what GPUs for desktops let a block have, 163 an A100, 227 an H100 and a B200."""
    for gpu in H100, A100, DESKTOP:
        for images in 1, 2048:
            made = planner(extension, gpu, preset, precision)
            plan = made.plan(images, 32)
            shared = made.shared_memory(plan.cluster, plan.tiles)
            assert 0 < shared.size <= gpu.shared_limit
            if plan.cluster > 1 and precision != "fp32":  # weights of most logits stay on chip
                assert shared.output_colour <= 1


def test_shared_memory_that_does_not_fit_is_none(extension):
    made = planner(extension, card(100, 40))
    assert made.shared_memory(1, 1) is None
    assert made.describe(1, 32) == "a block's shared memory exceeds the 40 KiB here"


def test_clusters_that_need_too_much_shared_memory_are_not_used(extension):
    """And tiles per cluster are as many as fit."""
    small = Card(132, 227 * 1024, lambda precision, cluster, shared: 16 * (shared < 90 * 1024))
    made = planner(extension, small, "paper-64", "fp32")
    plan = made.plan(2048, 32)
    assert 1 < plan.tiles < 8
    assert made.active_clusters(plan.cluster, plan.tiles)
    assert not made.active_clusters(plan.cluster, plan.tiles + 1)


@pytest.mark.parametrize(
    ("card", "model", "images", "expected"),
    [
        (
            H100, "paper", 1,
            ["1 tile(s) of 16 images, 1 per cluster of 16 blocks, 8 clusters at a time",
             "of 227 KiB shared memory; with the weights of logits of 2 of 3 colours, the chain's "
             "sums, the weights of hidden units (in blocks that lead no tile); without the chain's "
             "weights;",
             "with look-ahead (11 features per colour, at most 24)", "operands bf16"],
        ),
        (
            H100, "paper", 2048,
            ["128 tile(s) of 16 images, 8 per cluster of 8 blocks, 16 clusters at a time (of 16 "
             "blocks, 8 would run, one tile each)",
             "with the weights of logits; without the chain's sums, the chain's weights"],
        ),
        (A100, "paper", 1, ["1 tile(s) of 16 images, a block each: it runs no clusters"]),
        (H100, TWO_LEVELS, 1, ["2 levels are too few for a cluster", "chain by the whole block"]),
    ],
)  # fmt: skip
def test_a_description_gives_the_variant_and_the_reason(extension, card, model, images, expected):
    text = planner(extension, card, model).describe(images, 32)
    for part in expected:
        assert part in text


def test_info_shows_the_variant_of_every_precision(extension):
    """As computed for a launch; without a GPU, for the device that the emulation serves."""
    assert cuda_variants() == []
    assert not any("engine cuda" in heading for heading in environment_tables())
    with emulated(extension):
        [table] = [t for name, t in environment_tables().items() if "engine cuda" in name]
        assert table == cuda_variants()
    assert [row[:3] for row in table[:2]] == [
        ("cpu", "fp32", "1 image(s)"),
        ("cpu", "fp32", "2048 image(s)"),
    ]
    assert len(table) == 6
    assert "operands bf16" in table[-1][-1]
    assert "8 per cluster of 8 blocks" in table[-1][-1]


def test_info_shows_an_error_of_the_runtime(extension, monkeypatch):
    def fail():
        raise RuntimeError("cudaGetDevice: no GPU")

    monkeypatch.setattr(extension, "shared_limit", fail)
    with emulated(extension):
        assert {row[-1] for row in cuda_variants()} == {"cudaGetDevice: no GPU"}
