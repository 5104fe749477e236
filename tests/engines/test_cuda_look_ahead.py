"""The chain with look-ahead, and the same chain without it, in the emulation."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from prsr.engines.cuda import CUDAEngine
from prsr.engines.cuda_formats import FORMATS
from prsr.engines.cuda_layout import Variant, lay_out
from prsr.engines.cuda_plan import Plan
from prsr.engines.grouped_weights import pack_prior
from prsr.testing import cdf_violation, random_images, with_rounded_operands
from tests.conftest import build_model
from tests.engines.emulated import EMULATION, emulated
from tests.engines.test_cuda import EPSILON, job_of

ENGINE = CUDAEngine()
pytestmark = EMULATION

ALONE = Plan(cluster=1, tiles=1, images_per_block=1, shared_loads=False)
PAIR = Plan(cluster=2, tiles=2, images_per_block=4, shared_loads=True)

CASES = {
    "one step": (ALONE, 2, {"prior_channels": 12, "prior_layers": 3}),
    "one layer": (ALONE, 1, {"prior_channels": 3, "prior_layers": 1}),
    "both halves of a tile": (PAIR, 20, {"prior_channels": 13, "channels": 1, "levels": 40}),
    "two steps": (PAIR, 9, {"prior_channels": 24, "channels": 1, "levels": 20, "prior_layers": 3}),
    "two steps, one layer": (ALONE, 1, {"prior_channels": 20, "channels": 1, "prior_layers": 1}),
}
LIMITS = {"fp32": EPSILON, "fp16": 2e-3, "bf16": 1e-2}
TOLERANCES = {"fp32": (1e-5, 1e-5), "fp16": (8e-3, 2**-6), "bf16": (3e-2, 2**-5)}
"""Absolute and relative. In fp16 and bf16, both chains round their operands, but not the same."""


@pytest.mark.parametrize("operands", FORMATS)
@pytest.mark.parametrize("case", CASES)
def test_both_chains_are_right_and_their_layers_agree(extension, case, operands):
    precision = "fp32" if operands in ("tf32", "split") else operands
    plan, n, changes = CASES[case]
    steps = 2 if "two steps" in case else 1
    model = build_model(**changes)
    truth = model if precision == "fp32" else with_rounded_operands(model, FORMATS[precision].dtype)
    probes, images = [], []
    for look_ahead in True, False:
        weights = lay_out(
            pack_prior(model.prior),
            precision,
            look_ahead=look_ahead,
            split=operands != "tf32",
        )
        assert weights.variant.horizontal == operands
        assert weights.variant.look_ahead == (look_ahead and (precision, steps) != ("fp32", 2))
        lr, job = job_of(model, random_images, n, 1, 1)
        with emulated(extension, plan):
            state = ENGINE.start(weights, job)
            ENGINE.rows(state, 0, job.image.shape[2])
            probes.append([ENGINE.probe(state, i) for i in range(model.config.prior_layers)])
        call = lr, job.image, job.noise, 1.0
        assert cdf_violation(truth, *call).max() <= LIMITS[precision]
        images.append(job.image)
    same = (images[0] == images[1]).flatten(1).all(1)
    assert same.any()
    absolute, relative = TOLERANCES[precision]
    for ours, theirs in zip(*probes, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one[same], other[same], atol=absolute, rtol=relative)


def test_the_number_of_features_of_a_colour_selects_the_chain():
    def looks_ahead(features, precision="bf16"):
        config = build_model(channels=1, prior_channels=features).config
        return Variant.of(config, precision).look_ahead

    assert [looks_ahead(n) for n in (1, 16, 17, 24, 25, 40)] == 4 * [True] + 2 * [False]
    assert [looks_ahead(n, "fp32") for n in (16, 17)] == [True, False]


def test_a_product_of_weights_that_overflows_is_not_used():
    model = build_model(prior_channels=3, prior_layers=2)
    with torch.no_grad():
        model.prior.blocks[0].mix.weight.fill_(300)
        model.prior.blocks[1].horizontal.weight.fill_(300)
        model.prior.head[0].weight.fill_(0.01)
    packed = pack_prior(model.prior)
    assert not lay_out(packed, "fp16").variant.look_ahead
    assert lay_out(packed, "bf16").variant.look_ahead
