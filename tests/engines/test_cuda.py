"""The CUDA kernels, emulated on the CPU thread by thread."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import prsr
from prsr.engines import cuda
from prsr.engines.base import Job, draw
from prsr.engines.cpu import CPUEngine
from prsr.engines.cuda_formats import FORMATS, PRECISIONS
from prsr.engines.cuda_plan import Card, Plan, Planner
from prsr.engines.torch import TorchEngine
from prsr.testing import cdf_violation, divergence_distance, with_rounded_operands
from tests.engines.emulated import EMULATION, ROOT, build, emulated

EPSILON = 1e-4
ENGINE = cuda.CUDAEngine()

pytestmark = EMULATION

ALONE = Plan(cluster=1, tiles=1, images_per_block=1, shared_loads=False)
SHARING = Plan(cluster=1, tiles=1, images_per_block=2, shared_loads=True)
PAIR = Plan(cluster=2, tiles=1, images_per_block=1, shared_loads=False)
PAIR_OF_TILES = Plan(cluster=2, tiles=2, images_per_block=3, shared_loads=True)
FOUR = Plan(cluster=4, tiles=3, images_per_block=4, shared_loads=True)

CASES = {
    "tiny": (ALONE, 2, {}),
    "even groups, conditional": (SHARING, 3, {"prior_channels": 12, "conditional_gates": True}),
    "one colour, one layer": (SHARING, 2, {"channels": 1, "prior_layers": 1, "levels": 2}),
    "many hidden units": (ALONE, 2, {"head_channels": 150, "prior_kernel": 5}),
    "two steps of a colour": (ALONE, 2, {"prior_channels": 60, "prior_kernel": 5}),
    "wide colours": (ALONE, 1, {"channels": 2, "prior_channels": 70, "head_channels": 35}),
    "two blocks": (PAIR, 2, {"levels": 40, "head_channels": 70, "conditional_gates": True}),
    "two tiles": (PAIR_OF_TILES, 17, {"levels": 23, "prior_kernel": 1, "first_kernel": 3}),
    "more blocks than levels": (FOUR, 50, {"levels": 40, "channels": 1, "prior_channels": 20}),
    "wide colours of two blocks": (PAIR, 2, {"levels": 17, "channels": 1, "prior_channels": 33}),
    "all levels": (ALONE, 1, {"levels": 256, "channels": 1, "prior_layers": 1}),
}
"""A plan, how many images, and changes of the configuration ``tiny``."""


def job_of(model, make_images, n, height, width, seed=4, temperature=1.0, masked=False):
    """Low-resolution images, and the job of enlarging them."""
    config = model.config
    lr = make_images(config, n, height, width)
    shape = (n, config.channels, config.scale * height, config.scale * width)
    image = torch.zeros(shape, dtype=torch.uint8)
    mask = None
    if masked:
        mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.3
        image = make_images(config, *shape[:1], *shape[2:], seed=1) * mask
    with torch.no_grad():
        features = model.conditioning.features(lr)
        conditioning = model.conditioning(lr)
    return lr, Job(
        conditioning=conditioning,
        features=features if config.conditional_gates else features[:, :0],
        noise=prsr.noise(seed, n, *shape[2:], config.channels),
        temperature=torch.as_tensor(temperature).expand(n).contiguous(),
        mask=mask,
        image=image,
    )


def draw_all(engine, model, job, precision="fp32"):
    """The state behind the last row."""
    state = engine.start(engine.pack(model.prior, precision), job)
    engine.rows(state, 0, job.image.shape[2])
    return state


CONFIGURATIONS = st.builds(
    dict,
    channels=st.sampled_from([1, 2, 3]),
    levels=st.sampled_from([2, 7, 17, 40]),
    prior_channels=st.integers(3, 40),
    prior_layers=st.integers(1, 3),
    prior_kernel=st.sampled_from([1, 3, 5]),
    first_kernel=st.sampled_from([3, 5]),
    head_channels=st.integers(3, 150),
    conditional_gates=st.booleans(),
    conditioning_channels=st.sampled_from([3, 17]),
)


@settings(max_examples=12)
@given(
    CONFIGURATIONS,
    st.sampled_from([1, 2, 17]),
    st.sampled_from([(1, 1), (1, 2), (2, 1)]),
    st.sampled_from([ALONE, SHARING, PAIR, PAIR_OF_TILES, FOUR]),
    st.sampled_from(PRECISIONS),
)
def test_random_configurations_agree_with_other_engines(
    make_model, make_images, extension, changes, n, size, plan, precision
):
    model = make_model(**changes)
    truth, limit = model, EPSILON
    if precision != "fp32":
        truth = with_rounded_operands(model, FORMATS[precision].dtype)
        limit = {"fp16": 2e-3, "bf16": 1e-2}[precision]
    lr, job = job_of(model, make_images, n, *size)
    with emulated(extension, plan):
        draw_all(ENGINE, model, job, precision)
    assert cdf_violation(truth, lr, job.image, job.noise, 1.0).max() <= limit
    for engine in (TorchEngine(), CPUEngine()):
        if engine.reasons(model.config, torch.device("cpu"), precision):
            continue
        other = job_of(model, make_images, n, *size)[1]
        draw_all(engine, model, other, precision)
        apart = divergence_distance(truth, lr, job.image, other.image, job.noise)
        assert apart.max() <= limit


@pytest.mark.parametrize("case", CASES)
def test_images_are_right_and_so_are_all_layers(make_model, make_images, extension, case):
    """SPEC's test, equality with another engine, and the activations of every layer and row."""
    plan, n, changes = CASES[case]
    model = make_model(**changes)
    size = (1, 2) if n > 16 else (2, 2)
    # The second is greedy, and some sub-pixels are known.
    temperature = torch.linspace(0, 1.5, n + 1)[1:] * (torch.arange(n) != 1)
    lr, job = job_of(model, make_images, n, *size, temperature=temperature, masked=True)
    given = job.image.clone()
    with emulated(extension, plan):
        state = ENGINE.start(ENGINE.pack(model.prior, "fp32"), job)
        for y in range(job.image.shape[2]):
            ENGINE.row(state, y)
            with torch.no_grad():
                stacks = model.prior.stacks(job.image, job.features)
            for layer in range(model.config.prior_layers):
                expected = [stack[:, :, y] for stack in stacks[layer]]
                assert_close(list(ENGINE.probe(state, layer)), expected, atol=1e-5, rtol=1e-5)
    call = lr, job.image, job.noise, temperature
    assert cdf_violation(model, *call, job.mask).max() <= EPSILON
    assert torch.equal(job.image[job.mask], given[job.mask])
    other = job_of(model, make_images, n, *size, temperature=temperature, masked=True)[1]
    engine = TorchEngine()
    draw_all(engine, model, other)
    apart = divergence_distance(model, lr, job.image, other.image, job.noise, temperature)
    assert apart.max() <= EPSILON


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("case", ["even groups, conditional", "wide colours", "two blocks"])
def test_operands_are_rounded_and_nothing_else(make_model, make_images, extension, case, precision):
    plan, _, changes = CASES[case]
    model = make_model(**changes)
    operand = FORMATS[precision].dtype
    rounded = with_rounded_operands(model, operand)
    lr, job = job_of(model, make_images, 16, 1, 2)
    with emulated(extension, plan):
        state = draw_all(ENGINE, model, job, precision)
        with torch.no_grad():
            stacks = rounded.prior.stacks(job.image, job.features)
        y = job.image.shape[2] - 1
        for layer in range(model.config.prior_layers):
            for ours, theirs in zip(ENGINE.probe(state, layer), stacks[layer], strict=True):
                kept = theirs[:, :, y].to(operand).float()
                # The gates' tanh is off by 2^-11, and a sum in another order may round to the next
                # number.
                assert_close(ours, kept, atol=4e-3, rtol=2**-6)
    call = lr, job.image, job.noise, 1.0
    limit = {"fp16": 2e-3, "bf16": 1e-2}[precision]
    assert cdf_violation(rounded, *call).max() <= limit
    weights = ENGINE.pack(model.prior, precision)
    for name, weight in (weights.vertical | weights.horizontal).items():
        exact = "first" in name or "bias" in name
        assert weight.dtype == (torch.float32 if exact else operand)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bits_do_not_depend_on_how_images_are_divided(
    make_model, make_images, extension, precision
):
    model = make_model(levels=40, prior_channels=20)
    kept = []
    for plan, n in (ALONE, 3), (SHARING, 33), (PAIR, 17), (PAIR_OF_TILES, 33), (FOUR, 18):
        _, job = job_of(model, make_images, 33, 1, 1)
        # The same images at other places of a batch.
        part = torch.arange(33 - n, 33) if plan is FOUR else torch.arange(n)
        some = Job(**{k: v[part] for k, v in vars(job).items() if v is not None}, mask=None)
        with emulated(extension, plan):
            state = draw_all(ENGINE, model, some, precision)
            probes = [ENGINE.probe(state, layer) for layer in range(model.config.prior_layers)]
        kept.append((part, some.image, probes))
    parts, images, probes = zip(*kept, strict=True)
    whole = probes[3]
    for part, image, own in zip(parts, images, probes, strict=True):
        assert torch.equal(image, images[3][part])
        for layer, probe in enumerate(own):
            for ours, theirs in zip(probe, whole[layer], strict=True):
                assert torch.equal(ours, theirs[part])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("plan", "changes"),
    [
        (PAIR, {"levels": 40, "prior_channels": 20}),
        # Two steps of a colour, and blocks with two, one and no level pairs.
        (Plan(4, 1, 1, shared_loads=False), {"levels": 72, "prior_channels": 60}),
        (PAIR_OF_TILES, {"levels": 40, "prior_channels": 20}),
    ],
)
def test_bits_do_not_depend_on_what_shared_memory_holds(
    make_model, make_images, extension, monkeypatch, plan, changes, precision
):
    """From the least with which the kernels run, with more and more arrays, to all of them."""
    model = make_model(head_channels=150, **changes)
    weights = ENGINE.pack(model.prior, precision)
    limits = {}
    for limit in range(0, 227 * 1024, 1024):
        card = Card(132, limit, lambda precision, cluster, shared: 8)
        memory = Planner(extension, card, weights.variant).shared_memory(plan.cluster, plan.tiles)
        if memory is not None:
            offsets = memory.given_offset, memory.chain_offset, memory.hidden_offset
            limits.setdefault((memory.output_colour, *(at >= 0 for at in offsets)), limit)
    assert {colour for colour, *_ in limits} == {0, 1, 2, 3}
    assert (3, False, False, False) in limits
    assert (0, True, True, plan.tiles < plan.cluster) in limits
    images = []
    for limit in limits.values():
        monkeypatch.setattr(extension, "shared_limit", lambda limit=limit: limit)
        _, job = job_of(model, make_images, 3 if plan.tiles == 1 else 18, 1, 1)
        with emulated(extension, plan):
            draw_all(ENGINE, model, job, precision)
        images.append(job.image)
    assert all(torch.equal(image, images[0]) for image in images)


@pytest.mark.parametrize("temperature", [0.0, 1e-45, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("levels", [2, 7, 256])
def test_a_draw_is_the_draw(make_model, make_images, extension, levels, temperature):
    """Of logits that the conditioning alone decides, at the extremes too."""
    model = make_model(levels=levels, channels=1, prior_layers=1, prior_channels=1, head_channels=1)
    with torch.no_grad():
        for parameter in model.prior.parameters():
            parameter.zero_()
    random = torch.Generator().manual_seed(levels)
    _, job = job_of(model, make_images, 64, 1, 1, temperature=temperature)
    job.conditioning = 3 * torch.randn(job.conditioning.shape, generator=random)
    job.conditioning[torch.rand(job.conditioning.shape, generator=random) < 0.3] = -1e4
    job.conditioning[:4] = 0  # equal ones: with two levels, u = 1/2 is the edge between them
    job.noise[::4], job.noise[1::4], job.noise[2::8] = 0, 1 - 2.0**-24, 0.5
    with emulated(extension, ALONE):
        draw_all(ENGINE, model, job)
    logits = job.conditioning.permute(0, 2, 3, 4, 1).flatten(0, 3)
    noise = job.noise.permute(0, 3, 1, 2).flatten()
    drawn = job.image.flatten().long()
    if temperature < 0.1:
        temperatures = torch.full(noise.shape, temperature)
        assert torch.equal(drawn, draw(logits, noise, temperatures))
        return
    p = (logits.double() / temperature).softmax(dim=1)
    cdf = p.cumsum(dim=1).gather(1, drawn[:, None])[:, 0]
    mass = p.gather(1, drawn[:, None])[:, 0]
    assert bool((mass > 0).all())
    assert bool(((cdf > noise - 1e-6) & (cdf - mass <= noise + 1e-6)).all())
    if levels == 2:
        assert bool((drawn[(logits == 0).all(1) & (noise == 0.5)] == 1).all())


def test_logits_that_overflowed_draw_a_level(make_model, make_images, extension):
    model = make_model()
    for value in (torch.nan, torch.inf, -torch.inf):
        _, job = job_of(model, make_images, 1, 1, 1)
        job.conditioning[:] = value
        with emulated(extension, ALONE):
            draw_all(ENGINE, model, job)
        assert int(job.image.max()) < model.config.levels


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_weights_that_a_precision_cannot_hold_are_refused(make_model, precision):
    model = make_model()
    with torch.no_grad():
        model.prior.head[2].weight[0, 0] = {"fp16": 65520.0, "bf16": 3.4e38}[precision]
    with pytest.raises(ValueError, match=f"the prior's weights in {precision} must be finite"):
        ENGINE.pack(model.prior, precision)
    ENGINE.pack(model.prior, "fp32")


def test_arguments_are_taken_by_name_and_completely(extension):
    fields = extension.VerticalRow.fields
    row = extension.VerticalRow(**{name: i for i, name in enumerate(fields)})
    assert [getattr(row, name) for name in fields] == list(range(len(fields)))
    for wrong in ({}, dict.fromkeys(fields, 1) | {"other": 1}):
        with pytest.raises(TypeError, match="expected exactly the fields"):
            extension.VerticalRow(**wrong)


def test_without_its_extension_the_engine_says_how_to_get_it():
    code = "import sys; sys.modules['prsr._cuda'] = None; import prsr; "
    code += "print(prsr.list_engines()['cuda'])"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    for fact in (b"not built", b"nvcc", b"PRSR_BUILD_CUDA=1"):
        assert fact in printed


def test_it_serves_no_cpu():
    assert "it runs on NVIDIA GPUs, but the model is on cpu" in ENGINE.reasons(
        prsr.PRSRConfig(), torch.device("cpu"), "fp32"
    )


def test_memory_is_in_bounds():
    """One image of each kind of chain and cluster under AddressSanitizer."""
    library = subprocess.run(
        [os.environ.get("CXX", "c++"), "-print-file-name=libasan.so"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    if not Path(library).is_absolute():
        pytest.skip("the compiler has no AddressSanitizer")
    module = build("-fsanitize=address", "-O1", "-g")
    run = subprocess.run(
        [sys.executable, "-m", "tests.engines.emulated_images", module],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count("right") == 4
