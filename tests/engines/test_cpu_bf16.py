"""The engine ``cpu`` in bf16: it computes what SPEC defines, with every instruction set."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

import prsr
from prsr.engines.base import Job
from prsr.engines.cpu import BUNDLE, CPUEngine
from prsr.engines.native import INSTRUCTION_SET, instruction_sets
from prsr.sampling.conditioning import Conditioner
from prsr.testing import cdf_violation, with_rounded_operands

pytestmark = [
    pytest.mark.sanitize,
    pytest.mark.skipif(
        not instruction_sets(), reason="the extension is not built: there was no compiler"
    ),
]

EPSILON = 0.02  # of SPEC, for bf16
ENGINE = CPUEngine()
BOTH = BUNDLE + 2  # with one thread, a bundle and two images drawn one by one
EXACT = {"prior_channels": 33, "head_channels": 35, "conditional_gates": True}

CONFIGURATIONS = st.builds(
    dict,
    channels=st.sampled_from([1, 2, 3, 5]),
    levels=st.sampled_from([2, 7, 40, 80]),
    prior_channels=st.integers(5, 40),
    prior_layers=st.integers(1, 3),
    prior_kernel=st.sampled_from([1, 3, 5]),
    first_kernel=st.sampled_from([3, 5]),
    head_channels=st.integers(5, 70),
    conditional_gates=st.booleans(),
    conditioning_channels=st.sampled_from([3, 32, 33]),
    seed=st.integers(0, 99),
)


def make_job(model, make_images, n, height=2, width=3, given=0.0):
    """Low-resolution images, their job, and what was known of the images."""
    config = model.config
    lr = make_images(config, n, height, width)
    shape = (n, config.channels, config.scale * height, config.scale * width)
    noise = prsr.noise(0, n, shape[2], shape[3], config.channels)
    known = make_images(config, n, shape[2], shape[3], seed=1)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) < given
    conditioning = Conditioner(model.conditioning, config, lr.device)(lr)
    return lr, Job(*conditioning, noise, torch.ones(n), mask, torch.where(mask, known, 0))


def draw(job, packed):
    """Draw all rows. The probes of each layer at each row."""
    state, probes = ENGINE.start(packed, job), []
    for y in range(job.image.shape[2]):
        ENGINE.row(state, y)
        probes.append([ENGINE.probe(state, layer) for layer in range(packed.config.layers)])
    return probes


def assert_same(probes, others, share):
    """Assert that activations are close, and that a share of them is equal."""
    one, other = (
        torch.cat([stack.flatten() for row in each for pair in row for stack in pair])
        for each in (probes, others)
    )
    assert_close(one, other, atol=2**-6, rtol=2**-7)
    assert (one == other).float().mean() > share


@pytest.mark.instruction_set
@settings(max_examples=30)
@example(EXACT, BOTH, 0.4, 2)
@given(CONFIGURATIONS, st.sampled_from([1, 2, 3, BOTH]), st.sampled_from([0, 0.4]), st.just(1))
def test_layers_and_draws_are_those_of_the_network_that_rounds_operands(
    make_model, make_images, threads, changes, n, given, count
):
    threads(count)
    model = make_model(**changes)
    rounded = with_rounded_operands(model)
    lr, job = make_job(model, make_images, n, given=given)
    known = job.image.clone()
    probes = draw(job, ENGINE.pack(model.prior, "bf16"))
    assert bool((job.image == known)[job.mask].all())
    violation = cdf_violation(rounded, lr, job.image, job.noise, 1.0, job.mask)
    assert violation.max() <= EPSILON
    layers = rounded.prior.stacks(job.image, job.features)
    wanted = [
        [[stack[:, :, y].bfloat16().float() for stack in pair] for pair in layers[:-1]]
        for y in range(len(probes))
    ]
    # A sum in another order may round to the next number, and so may what is computed from it.
    assert_same(probes, wanted, share=0.9)


# Each operand that SPEC names, by the layers that read it: without its rounding, the engine and the
# network differ.
KINDS = "vertical", "link", "horizontal", "mix", "conditional_vertical", "conditional_horizontal"


def leave_inputs(model, kind):
    """The network that rounds operands, but not the inputs of layers of one kind."""
    rounded = with_rounded_operands(model)
    if kind == "hidden":
        rounded.prior.head[0]._forward_pre_hooks.clear()
    elif kind == "logits":
        rounded.prior.head[1]._forward_hooks.clear()
    for block in rounded.prior.blocks:
        if kind in KINDS:
            getattr(block, kind)._forward_pre_hooks.clear()
    return rounded


def leave_weights(model, kind):
    """The network that rounds operands, but not the weights of layers of one kind."""
    rounded = with_rounded_operands(model)
    for name, layer in rounded.prior.named_modules():
        kinds = {"head.0": "hidden", "head.2": "logits"}
        if isinstance(layer, nn.Conv2d) and kinds.get(name, name.rpartition(".")[2]) == kind:
            layer.weight.data = model.prior.get_submodule(name).weight.data
    return rounded


@pytest.mark.instruction_set
def test_every_operand_is_rounded(make_model, make_images, threads):
    threads(1)
    model = make_model(levels=40, **EXACT)
    lr, job = make_job(model, make_images, 16)
    draw(job, ENGINE.pack(model.prior, "bf16"))
    call = lr, job.image, job.noise, 1.0
    assert cdf_violation(with_rounded_operands(model), *call).max() <= 1e-4
    for kind in (*KINDS, "hidden", "logits"):
        for leave in (leave_inputs, leave_weights):
            assert cdf_violation(leave(model, kind), *call).max() > 1e-4, (leave.__name__, kind)


@pytest.mark.parametrize("name", instruction_sets())
def test_instruction_sets_agree(make_model, make_images, monkeypatch, name):
    # The instruction of AVX512-BF16 and its replacement sum in the same order.
    model = make_model(levels=40, prior_layers=3, **EXACT)
    probes = []
    for each in (name, instruction_sets()[-1]):
        monkeypatch.setenv(INSTRUCTION_SET, each)
        packed = ENGINE.pack(model.prior, "bf16")
        assert packed.instruction_set == each
        probes.append(draw(make_job(model, make_images, BOTH)[1], packed))
    assert_same(*probes, share=0.99)


def test_bf16_draws_what_the_naive_sampler_draws_with_rounded_operands(make_model, make_images):
    model = make_model(**EXACT)
    lr = make_images(model.config, BOTH, 1, 2)
    fast = prsr.sample(lr, model=model, seed=3, engine="cpu", precision="bf16")
    naive = prsr.sample(lr, model=with_rounded_operands(model), seed=3, engine="reference")
    assert (fast != naive).flatten(1).any(dim=1).sum() <= 1


@pytest.mark.parametrize(
    "place",
    [
        *[("blocks", 1, kind) for kind in ("vertical", "link", "horizontal", "mix")],
        ("blocks", 0, "conditional_vertical"),
        ("blocks", 0, "conditional_horizontal"),
        ("head", 0),
        ("head", 2),
    ],
    ids=str,
)
def test_weights_that_bfloat16_cannot_hold_are_refused(make_model, make_images, place):
    model = make_model(conditional_gates=True)
    layer = model.prior.get_submodule(".".join(map(str, place)))
    layer.weight.data[0, 0] = 3.4e38  # finite, and rounded up to infinity
    lr = make_images(model.config, 1, 1, 1)
    with pytest.raises(ValueError, match="weights in bf16 must be finite"):
        prsr.sample(lr, model=model, engine="cpu", precision="bf16")
    if place == ("head", 2):
        prsr.sample(lr, model=model, engine="cpu")


def test_weights_of_the_first_layers_are_not_rounded(make_model):
    model = make_model()
    for layer in (model.prior.first_vertical, model.prior.first_horizontal):
        layer.weight.data[0, 0] = 3.4e38
    ENGINE.pack(model.prior, "bf16")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_threads_draw_one_image_as_one_thread_does(make_model, make_images, threads, precision):
    # The second thread sums older rows of the next row's vertical stack ahead, if there are enough
    # rows; with conditional gates, their weights begin after those of the conditioning features.
    model = make_model(
        **{**EXACT, "levels": 40, "prior_layers": 3, "prior_kernel": 5, "head_channels": 70}
    )
    lr = make_images(model.config, 1, 6, 6)
    sampler = prsr.Sampler(model, engine="cpu", precision=precision)
    threads(1)
    expected = sampler.sample(lr, seed=0)
    threads(2)
    for _ in range(3):
        assert torch.equal(sampler.sample(lr, seed=0), expected)
