"""The engines: each follows the noise on any configuration; and the choice of an engine."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import prsr
from prsr import PRESETS, Sampler
from prsr.engines.base import Engine, Job, draw
from prsr.engines.cpu import BUNDLE
from prsr.engines.registry import ENGINES
from prsr.sampling.conditioning import Conditioner
from prsr.testing import cdf_violation, divergence_distance

EPSILON = 1e-4  # docs/SPEC.md, section 2, for fp32
BUNDLED = BUNDLE + 1  # images; the engine cpu samples all but one of them as a bundle
HIGHEST = 1 - 2.0**-24  # the largest u that noise has

# By its full name, since prsr.engines is a function.
dispatch = importlib.import_module("prsr.engines.registry")

pytestmark = pytest.mark.sanitize


@st.composite
def configurations(choose):
    """Fields of a small configuration: every kernel, colour groups of equal and unequal size."""
    channels = choose(st.sampled_from([1, 2, 3, 5]))
    return {
        "channels": channels,
        "levels": choose(st.sampled_from([*range(2, 10), 256])),
        "scale": choose(st.sampled_from([1, 2, 4])),
        "conditioning_blocks": choose(st.integers(0, 1)),
        "prior_channels": choose(st.integers(channels, 9)),
        "prior_layers": choose(st.integers(1, 3)),
        "prior_kernel": choose(st.sampled_from([1, 3, 5])),
        "first_kernel": choose(st.sampled_from([3, 5, 7])),
        "head_channels": choose(st.integers(channels, 12)),
        "conditional_gates": choose(st.booleans()),
        "gain": choose(st.sampled_from([1.5, 2, 3])),
        "seed": choose(st.integers(0, 99)),
    }


@st.composite
def requests(choose):
    """A configuration, and a call small enough for the reference engine."""
    changes = choose(configurations())
    sides = st.integers(1, {1: 5, 2: 3, 4: 1}[changes["scale"]])
    n = choose(st.sampled_from([1, 2, 3, 4, BUNDLED]))
    temperatures = st.sampled_from([0.0, 0.3, 1.0, 2.0])
    each = st.lists(temperatures, min_size=n, max_size=n).map(torch.tensor)
    call = {
        "size": (n, choose(sides), choose(sides)),
        "temperature": choose(temperatures | each),
        "given": choose(st.sampled_from([0, 0, 0.4])),
        "seed": choose(st.integers(0, 2**64 - 1)),
    }
    return changes, call


def able(config):
    """The engines that run on this machine, except those for GPUs.

    test_triton.py and test_cuda.py run smaller versions of these tests with them.
    """
    reasons = prsr.list_engines(config)
    return [e for e in ENGINES if not reasons[e.name] and e.name not in ("triton", "cuda")]


def make_job(model, make_images, n=3, height=3, width=2, temperature=1.0, seed=0):
    """Low-resolution images and the job that enlarges them."""
    config = model.config
    lr = make_images(config, n, height, width)
    shape = (n, config.channels, config.scale * height, config.scale * width)
    noise = prsr.noise(seed, n, shape[2], shape[3], config.channels)
    conditioning = Conditioner(model.conditioning, config, lr.device)(lr)
    image = torch.zeros(shape, dtype=torch.uint8)
    return lr, Job(*conditioning, noise, torch.full((n,), temperature), None, image)


@pytest.mark.instruction_set
@settings(max_examples=60)
@given(requests())
def test_engines_follow_the_noise_and_agree(make_model, make_images, request_):
    changes, call = request_
    model = make_model(**changes)
    config, (n, h, w) = model.config, call["size"]
    lr = make_images(config, n, h, w)
    noise = prsr.noise(call["seed"], n, config.scale * h, config.scale * w, config.channels)
    known = make_images(config, n, config.scale * h, config.scale * w, seed=1)
    mask = torch.rand(known.shape, generator=torch.Generator().manual_seed(2)) < call["given"]
    fixed = {"known": known, "mask": mask} if call["given"] else {}
    images = {
        engine.name: prsr.sample(
            lr, call["temperature"], model=model, seed=call["seed"], engine=engine.name, **fixed
        )
        for engine in able(config)
    }
    assert {"torch", "reference"} <= images.keys()
    for image in images.values():
        assert torch.equal(image[mask], known[mask])
        outside = cdf_violation(model, lr, image, noise, call["temperature"], mask)
        assert outside.max() <= EPSILON
        truth = images["reference"]
        apart = divergence_distance(model, lr, image, truth, noise, call["temperature"])
        assert apart.max() <= EPSILON


@pytest.mark.instruction_set
@settings(max_examples=25)
@given(configurations(), st.sampled_from([2, BUNDLED]), st.integers(1, 3), st.integers(1, 3))
def test_caches_hold_what_the_network_computes(make_model, make_images, changes, n, h, w):
    model = make_model(**changes | {"scale": 2})
    for engine in able(model.config):
        _, job = make_job(model, make_images, n, h, w)
        state = engine.start(engine.pack(model.prior, "fp32"), job)
        for y in range(2 * h):
            engine.row(state, y)
            with torch.no_grad():
                stacks = model.prior.stacks(job.image, job.features)
            for layer in range(model.config.prior_layers):
                expected = [stack[:, :, y] for stack in stacks[layer]]
                assert_close(list(engine.probe(state, layer)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.instruction_set
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.quick] if name == "tiny" else []) for name in PRESETS],
)
def test_samples_of_every_preset_follow_the_noise(make_model, make_images, name):
    model = make_model(config=PRESETS[name])
    lr = make_images(model.config, 2, 1, 2)
    scale = model.config.scale
    noise = prsr.noise(3, 2, scale, 2 * scale, model.config.channels)
    for engine in able(model.config):
        if engine.name == "reference":  # it would take minutes
            continue
        image = prsr.sample(lr, model=model, seed=3, engine=engine.name)
        assert cdf_violation(model, lr, image, noise, 1.0).max() <= EPSILON


@pytest.mark.parametrize("engine", able(PRESETS["tiny"]), ids=lambda engine: engine.name)
def test_packed_weights_are_a_copy(make_model, make_images, engine):
    model = make_model()
    packed = engine.pack(model.prior, "fp32")
    images = []
    for _ in range(2):
        _, job = make_job(model, make_images, 1, 1, 2)
        state = engine.start(packed, job)
        for y in range(2):
            engine.row(state, y)
        images.append(job.image)
        for parameter in model.prior.parameters():
            parameter.data.mul_(-1)
    assert torch.equal(*images)


# Logits, and the levels drawn for u at its minimum, one half and its maximum.
@pytest.mark.parametrize(
    ("logits", "levels"),
    [
        ([0.0, 0.0, 0.0, 0.0], (0, 2, 3)),
        ([0.0, 0.0], (0, 1, 1)),  # u = ½ is on the edge, which belongs to the upper level
        ([-math.inf, 0.0, 0.0, -math.inf], (1, 2, 2)),
        ([-300.0, -300.0, 0.0, -300.0], (2, 2, 2)),
        ([1e30, -1e30, 1e30, 0.0], (0, 2, 2)),
        ([-1e30, -1e30, -1e30], (0, 1, 2)),
        ([3e38, -3e38], (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_draw_at_the_extremes(logits, levels, temperature):
    u = torch.tensor([0.0, 0.5, HIGHEST])
    drawn = draw(torch.tensor([logits] * 3), u, torch.full((3,), temperature))
    assert drawn.tolist() == list(levels)


def test_draw_with_a_sum_rounded_below_u_takes_the_last_level_with_mass():
    logits = torch.tensor([[0.0, -1.0, -math.inf], [0.0, -math.inf, -math.inf]])
    # u = 1 stands for a parallel sum of probabilities that is rounded below u.
    assert draw(logits, torch.ones(2), torch.ones(2)).tolist() == [1, 0]


def test_greedy_draw_takes_the_first_of_equal_levels_for_any_noise():
    logits = torch.tensor([[0.0, 2.0, 1.0, 2.0], [1e30, 1e30, 0.0, 0.0], [-1e30, 0.0, 0.0, -1.0]])
    for u in (0.0, 0.5, HIGHEST):
        assert draw(logits, torch.full((3,), u), torch.zeros(3)).tolist() == [1, 0, 1]


@pytest.mark.parametrize("temperature", [1e-30, 1e-38, 1e-45])
def test_temperature_near_zero_draws_the_largest_level(temperature):
    logits = torch.tensor([[0.0, 2.0, 1.999, -3.0]] * 3)
    drawn = draw(logits, torch.tensor([0.0, 0.5, HIGHEST]), torch.full((3,), temperature))
    assert drawn.tolist() == [1, 1, 1]


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("levels", [2, 7, 256])
def test_draw_inverts_the_cdf_and_takes_no_level_without_mass(levels, temperature):
    random = torch.Generator().manual_seed(levels)
    logits = 3 * torch.randn((2000, levels), generator=random)
    logits[torch.rand(logits.shape, generator=random) < 0.3] = -1e4
    u = torch.rand(2000, generator=random)
    u[:400], u[400:800] = 0, HIGHEST
    drawn = draw(logits, u, torch.full((2000,), temperature))[:, None]
    p = (logits.double() / temperature).softmax(dim=1)
    cdf = p.cumsum(dim=1).gather(1, drawn)[:, 0]
    assert bool((p.gather(1, drawn) > 0).all())
    assert bool((cdf > u - 1e-6).all())
    assert bool((cdf - p.gather(1, drawn)[:, 0] <= u + 1e-6).all())


def test_draw_uses_the_temperature_of_each_image():
    logits, u = torch.tensor([[0.0, 1.0, 0.5]] * 4), torch.full((4,), 0.2)
    temperatures = torch.tensor([0.0, 0.01, 1.0, 100.0])
    assert draw(logits, u, temperatures).tolist() == [1, 1, 1, 0]


class Fake(Engine):
    """Fills images with one level, or gives reasons against itself."""

    def __init__(self, name, level=0, reasons=()):
        self.name, self.level, self.against = name, level, list(reasons)

    def reasons(self, config, device, precision):
        return self.against

    def pack(self, prior, precision):
        return None

    def start(self, packed, job):
        return job

    def row(self, state, y):
        state.image[:, :, y] = self.level

    def probe(self, state, layer):
        raise NotImplementedError


def test_engines_are_listed_with_their_reasons():
    assert list(prsr.list_engines()) == [engine.name for engine in ENGINES]
    assert {"torch", "reference"} <= prsr.list_engines().keys()
    for config in PRESETS.values():
        assert prsr.list_engines(config)["torch"] == prsr.list_engines(config)["reference"] == []
    assert prsr.list_engines(precision="bf16")["reference"] == [
        "it computes in fp32 only, not in bf16"
    ]


def test_a_missing_device_is_a_reason_and_an_unknown_one_an_error():
    if not torch.cuda.is_available():
        assert all(
            "there is no device cuda here" in r for r in prsr.list_engines(device="cuda").values()
        )
    with pytest.raises(ValueError, match="no kind of device called 'warp'"):
        prsr.list_engines(device="warp")


def test_auto_takes_the_first_engine_that_can_run(make_model, make_images, monkeypatch):
    model = make_model()
    lr = make_images(model.config, 1, 2, 2)
    fakes = (Fake("broken", reasons=["no card"]), Fake("four", 4), Fake("five", 5))
    monkeypatch.setattr(dispatch, "ENGINES", fakes)
    assert prsr.list_engines() == {"broken": ["no card"], "four": [], "five": []}
    assert Sampler(model).engine == "four"
    assert prsr.sample(lr, model=model).unique().tolist() == [4]
    assert prsr.sample(lr, model=model, engine="five").unique().tolist() == [5]


def test_refusal_gives_every_reason_of_every_engine_considered(make_model, monkeypatch):
    fakes = (Fake("one", reasons=["no card", "too wide"]), Fake("two", reasons=["no compiler"]))
    monkeypatch.setattr(dispatch, "ENGINES", fakes)
    with pytest.raises(ValueError, match="one: no card, too wide; two: no compiler"):
        Sampler(make_model())
    with pytest.raises(ValueError, match=r"engine='one' cannot be used: one: no card, too wide$"):
        Sampler(make_model(), engine="one")


def test_unknown_engine_and_precision_are_refused_by_name(make_model):
    with pytest.raises(ValueError, match=r"no engine 'fast'; there are: auto, .*torch, reference"):
        Sampler(make_model(), engine="fast")
    with pytest.raises(ValueError, match="precision must be one of fp32, fp16, bf16, got 'fp8'"):
        Sampler(make_model(), precision="fp8")
    with pytest.raises(ValueError, match="precision must be one of"):
        prsr.list_engines(precision="fp8")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("engine", ["torch", "reference"])
def test_unsupported_precision_is_refused_with_the_reason(make_model, engine, precision):
    with pytest.raises(ValueError, match=f"{engine}: it computes in fp32 only, not in {precision}"):
        Sampler(make_model(), engine=engine, precision=precision)


def test_the_engine_cpu_has_no_fp16(make_model):
    with pytest.raises(ValueError, match=r"cpu: .*it computes in fp32 and bf16, not in fp16"):
        Sampler(make_model(), engine="cpu", precision="fp16")
