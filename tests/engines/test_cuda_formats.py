"""The formats of operands: their error, and which one serves a model."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from prsr.engines.cuda import CUDAEngine
from prsr.engines.cuda_formats import FORMATS, STEP
from prsr.engines.cuda_layout import lay_out
from prsr.engines.grouped_weights import pack_prior
from prsr.testing import cdf_violation
from tests.engines.emulated import EMULATION, emulated
from tests.engines.test_cuda import CASES, EPSILON, job_of

ENGINE = CUDAEngine()
SPLIT = FORMATS["split"]


def test_two_fp16_numbers_are_nearly_one_fp32_number():
    random = torch.Generator().manual_seed(0)
    values = torch.randn(1000, generator=random) * torch.logspace(-12, 4.2, 1000)
    error = (SPLIT.values(SPLIT.elements(values)) - values).abs()
    assert bool((error <= (values.abs() * 2**-22).clamp(min=2**-36)).all())
    # A plain fp16 number is much worse.
    assert (values.half().float() - values).abs().max() > 1000 * error.max()


@pytest.mark.parametrize("name", FORMATS)
def test_steps_hold_all_features(name):
    """Of 16 images and two steps; a lane's places are those that the kernels' tests need."""
    operand = FORMATS[name]
    shape = operand.lane_shape
    steps = torch.arange(2 * shape[0] * shape[1] * shape[2]) % 2000
    features = operand.features_of(steps.reshape(2, *shape).to(operand.dtype))
    assert features.shape == (STEP, 2 * STEP)
    assert features.dtype == torch.float32
    if not operand.split and name != "bf16":
        assert len(features.unique()) == 2 * 256


@pytest.mark.parametrize("gated", [False, True])
def test_proven_ranges_select_the_format(make_model, gated):
    """Conditional gates read what no weight bounds, in the vertical kernel alone."""
    model = make_model(conditional_gates=gated)

    def formats(split=True):
        variant = lay_out(pack_prior(model.prior), "fp32", split=split).variant
        return variant.vertical, variant.horizontal

    assert formats() == ("tf32" if gated else "split", "split")
    assert formats(split=False) == ("tf32", "tf32")
    block = model.prior.blocks[0]
    with torch.no_grad():
        block.vertical.bias[0] = 70000
    assert formats() == (("tf32", "split") if gated else ("tf32", "tf32"))
    with torch.no_grad():
        block.vertical.bias[0] = 0
        block.mix.bias[0] = 70000
    assert formats() == ("tf32", "tf32")
    with torch.no_grad():
        block.mix.bias[0] = 0
        # This weight is no activation's bound: it is multiplied by a hidden unit that is zero.
        model.prior.head[0].weight.zero_()
        model.prior.head[0].bias.zero_()
    assert formats() == ("tf32" if gated else "split", "split")
    with torch.no_grad():
        model.prior.head[2].weight[-1, -1] = 70000
    assert formats() == ("tf32", "tf32")


class TestEmulated:
    """Runs of the kernels."""

    pytestmark = EMULATION

    @pytest.mark.parametrize("case", ["tiny", "two steps of a colour", "wide colours", "two tiles"])
    @pytest.mark.parametrize("split", [False, True])
    def test_both_fp32_formats_are_right(self, make_model, make_images, extension, case, split):
        plan, n, changes = CASES[case]
        model = make_model(**changes)
        lr, job = job_of(model, make_images, n, 1, 1)
        weights = lay_out(pack_prior(model.prior), "fp32", split=split)
        with emulated(extension, plan):
            state = ENGINE.start(weights, job)
            ENGINE.rows(state, 0, job.image.shape[2])
            probes = [ENGINE.probe(state, i) for i in range(model.config.prior_layers)]
        assert cdf_violation(model, lr, job.image, job.noise, 1.0).max() <= EPSILON
        with torch.no_grad():
            stacks = model.prior.stacks(job.image, job.features)
        for probe, (vertical, horizontal) in zip(probes, stacks[: len(probes)], strict=True):
            expected = [vertical[:, :, -1], horizontal[:, :, -1]]
            assert_close(list(probe), expected, atol=1e-5, rtol=1e-5)

    def test_large_numbers_are_served_by_tf32(self, make_model, make_images, extension):
        """Hidden units of up to a million, whose sum is moderate."""
        model = make_model()
        with torch.no_grad():
            model.prior.head[0].weight.mul_(1e5)
            model.prior.head[2].weight.mul_(1e-5)
        lr, job = job_of(model, make_images, 2, 1, 1)
        with emulated(extension, CASES["tiny"][0]):
            weights = ENGINE.pack(model.prior, "fp32")
            assert weights.variant.horizontal == "tf32"
            ENGINE.rows(ENGINE.start(weights, job), 0, job.image.shape[2])
        assert cdf_violation(model, lr, job.image, job.noise, 1.0).max() <= EPSILON
