"""Invalid arguments: each error comes before any work and names the argument."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import prsr
from prsr import Sampler
from prsr.models.baselines import Independent
from prsr.sampling.interpolation import Bicubic
from prsr.sampling.method_for import method_for

N, D, H, W = 2, 3, 4, 6  # of the high-resolution images
KNOWN = torch.zeros((N, D, H, W), dtype=torch.uint8)
MASK = torch.zeros((N, D, H, W), dtype=torch.bool)


@pytest.fixture
def lr(sampler, make_images):
    return make_images(sampler.config, N, 2, 3)


def image(width, height):
    return Image.new("RGB", (width, height))


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (torch.zeros(3, 2, 3, dtype=torch.uint8), ValueError, r"batch must be \[N, 3, .*\[3, 2, 3"),
        (torch.zeros(1, 1, 3, 2, 3, dtype=torch.uint8), ValueError, "batch must be"),
        (torch.zeros(2, 1, 2, 3, dtype=torch.uint8), ValueError, r"got \[2, 1, 2, 3\]"),
        (torch.zeros(2, 3, 0, 3, dtype=torch.uint8), ValueError, "batch must be"),
        (torch.zeros(2, 3, 2, 0, dtype=torch.uint8), ValueError, "batch must be"),
        (torch.zeros(2, 3, 2, 3), TypeError, "batch must be a uint8 tensor, got torch.float32"),
        (torch.zeros(2, 3, 2, 3, dtype=torch.int8), TypeError, "batch must be a uint8 tensor"),
        (torch.full((2, 3, 2, 3), 8, dtype=torch.uint8), ValueError, "batch must .* below 8 .*8$"),
        (np.zeros((2, 3, 2, 3)), TypeError, "batch must be uint8, got float64"),
        (np.zeros((3, 2, 3), np.uint8), ValueError, "batch must be"),
        (np.full((1, 3, 2, 3), 255, np.uint8), ValueError, "batch must hold values below 8"),
        ([], TypeError, "batch must be .* got list"),
        ([torch.zeros(3, 2, 3, dtype=torch.uint8)], TypeError, "batch must be .* got list"),
        ([image(2, 3), "face.png"], TypeError, "batch must be .* got list"),
        ("face.png", TypeError, "batch must be .* got str"),
        (None, TypeError, "batch must be .* got NoneType"),
        ([image(2, 3), image(3, 2)], ValueError, "batch must have one size, .*2, 3.*3, 2"),
    ],
)
def test_invalid_batch_is_refused(sampler, batch, error, message):
    with pytest.raises(error, match=message):
        sampler.sample(batch, seed=1)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("temperature", -1, ValueError),
        ("temperature", -1e-9, ValueError),
        ("temperature", math.nan, ValueError),
        ("temperature", math.inf, ValueError),
        ("temperature", 1e39, ValueError),
        ("temperature", 10**400, ValueError),
        pytest.param("temperature", -(10**5000), ValueError, id="unprintable temperature"),
        ("temperature", torch.tensor([1.0, math.nan]), ValueError),
        ("temperature", torch.tensor([1.0, -1.0]), ValueError),
        ("temperature", torch.ones(N + 1), ValueError),
        ("temperature", torch.ones(1), ValueError),
        ("temperature", torch.ones(N, 1), ValueError),
        ("temperature", "1", TypeError),
        ("temperature", None, TypeError),
        ("temperature", True, TypeError),
        ("temperature", [1.0, 1.0], TypeError),
        ("seed", -1, ValueError),
        ("seed", 2**64, ValueError),
        pytest.param("seed", 10**5000, ValueError, id="unprintable seed"),
        ("seed", 1.0, TypeError),
        ("seed", "1", TypeError),
        ("seed", True, TypeError),
        ("num_samples", 0, ValueError),
        ("num_samples", -1, ValueError),
        ("num_samples", 2**32, ValueError),
        ("num_samples", 1.5, TypeError),
        ("first_index", -1, ValueError),
        ("first_index", 2**63 - 1, ValueError),
        ("first_index", 0.0, TypeError),
        ("first_index", None, TypeError),
    ],
)
@pytest.mark.parametrize("method", ["sample", "rows"])
def test_invalid_argument_is_refused_by_name(sampler, lr, method, name, value, error):
    with pytest.raises(error, match=f"^{name} must be"):
        getattr(sampler, method)(lr, **{"seed": 1} | {name: value})


@pytest.mark.parametrize("progress", [1, 0, None, "bar", np.True_])
def test_invalid_progress_is_refused_by_name(sampler, lr, progress):
    with pytest.raises(TypeError, match=r"^progress must be a bool or a rich\.progress\.Progress"):
        sampler.sample(lr, seed=1, progress=progress)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"known": KNOWN}, ValueError, "known and mask go together"),
        ({"mask": MASK}, ValueError, "known and mask go together"),
        ({"known": KNOWN.float(), "mask": MASK}, TypeError, "^known must be a uint8 tensor"),
        ({"known": KNOWN.numpy(), "mask": MASK}, TypeError, "^known must be a uint8 tensor"),
        ({"known": KNOWN, "mask": MASK.byte()}, TypeError, "^mask must be a bool tensor"),
        ({"known": KNOWN, "mask": MASK.numpy()}, TypeError, "^mask must be a bool tensor"),
        ({"known": KNOWN, "mask": True}, TypeError, "^mask must be a bool tensor, got bool"),
        ({"known": KNOWN[:1], "mask": MASK}, ValueError, r"^known must be \[2, 3, 4, 6\]"),
        ({"known": KNOWN[..., :3], "mask": MASK}, ValueError, r"^known must be \[2, 3, 4, 6\]"),
        ({"known": KNOWN + 8, "mask": MASK}, ValueError, "^known must hold values below 8"),
        ({"known": KNOWN, "mask": MASK[..., :3]}, ValueError, r"^mask must be \[2, 3, 4, 6\] or"),
        ({"known": KNOWN, "mask": MASK[None]}, ValueError, "^mask must be"),
    ],
)
def test_invalid_completion_is_refused_by_name(sampler, lr, arguments, error, message):
    with pytest.raises(error, match=message):
        sampler.sample(lr, seed=1, **arguments)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("engine", ["torch", "reference"])
def test_non_finite_weights_are_refused_by_name(make_model, lr, engine, value):
    model = make_model()
    sampler = Sampler(model, engine=engine)
    sampler.sample(lr[:1], seed=1)
    weight = model.prior.blocks[1].link.weight
    kept = weight.data[0, 0].clone()
    weight.data[0, 0] = value
    for _ in range(2):  # also when they have been checked before
        with pytest.raises(ValueError, match=r"weight prior\.blocks\.1\.link\.weight must be fin"):
            sampler.sample(lr, seed=1)
    weight.data[0, 0] = kept
    sampler.sample(lr[:1], seed=1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_conditioning_logits_are_refused(make_model, lr, value):
    model = make_model()
    model.conditioning[-1].bias.data[5] = value
    with pytest.raises(ValueError, match="the conditioning network's logits must be finite"):
        prsr.sample(lr, model=model, seed=1)


def test_image_whose_logits_exceed_the_memory_is_refused_before_the_work(sampler):
    lr = torch.zeros((1, 3, 1, 1), dtype=torch.uint8).expand(1, 3, 2**18, 2**18)
    with pytest.raises(ValueError, match=r"conditioning features would take .* GiB, and cpu has"):
        sampler.sample(lr, seed=1)


@pytest.mark.parametrize("method", ["sample", "rows"])
@pytest.mark.parametrize("count", [10**9, 2**32 - 1])
def test_more_samples_than_fit_in_memory_are_refused_by_name(sampler, lr, method, count):
    with pytest.raises(ValueError, match=rf"^num_samples={count}: samples would take .* GiB"):
        getattr(sampler, method)(lr.repeat(10**4, 1, 1, 1), seed=1, num_samples=count)


def test_more_samples_than_fit_are_refused_for_every_method(lr, make_model, monkeypatch):
    config = make_model().config
    monkeypatch.setattr("prsr.utils.argument_checks.SMALL", 0)
    monkeypatch.setattr("prsr.utils.argument_checks.memory_limit", lambda: 2 * KNOWN.numel())
    for method in (Bicubic(config), method_for(Independent(config))):
        method.sample(lr, seed=1, num_samples=2)
        with pytest.raises(ValueError, match=r"^num_samples=3: samples would take"):
            method.sample(lr, seed=1, num_samples=3)


def test_logits_that_are_computed_row_by_row_do_not_limit_the_size(make_model, monkeypatch):
    model = make_model(levels=256)
    monkeypatch.setattr("prsr.sampling.sampler.SMALL", 0)
    monkeypatch.setattr("prsr.utils.argument_checks.SMALL", 0)
    lr = torch.zeros((1, 3, 2, 2), dtype=torch.uint8)
    inputs = 4 * model.config.conditioning_channels * 16
    monkeypatch.setattr("prsr.utils.argument_checks.memory_limit", lambda: inputs)
    assert Sampler(model, engine="cpu").sample(lr, seed=1).shape == (1, 3, 4, 4)
    with pytest.raises(ValueError, match="conditioning logits would take"):
        Sampler(model, engine="torch").sample(lr, seed=1)
    monkeypatch.setattr("prsr.utils.argument_checks.memory_limit", lambda: inputs - 1)
    with pytest.raises(ValueError, match="conditioning features would take"):
        Sampler(model, engine="cpu").sample(lr, seed=1)


def test_conditioning_logits_of_the_wrong_size_are_refused(make_model, lr):
    model = make_model()
    model.conditioning.insert(1, torch.nn.Upsample(scale_factor=2))
    with pytest.raises(ValueError, match=r"logits must be \[1, 8, 3, 4, 6\], got"):
        prsr.sample(lr, model=model, seed=1)


def test_conditioning_that_is_not_a_module_is_refused_by_name(make_model):
    model = make_model()
    parts = {"config": model.config, "prior": model.prior, "conditioning": lambda lr: lr}
    with pytest.raises(TypeError, match=r"^model.conditioning must be a torch.nn.Module, got func"):
        Sampler(SimpleNamespace(**parts))


@pytest.mark.parametrize("missing", ["config", "prior", "conditioning"])
def test_model_that_lacks_a_part_is_refused_by_name(make_model, missing):
    model = make_model()
    parts = {name: getattr(model, name) for name in ("config", "prior", "conditioning")}
    del parts[missing]
    with pytest.raises(TypeError, match=f"^model must be .*without {missing}$"):
        Sampler(SimpleNamespace(**parts))


def test_pillow_images_need_a_model_of_one_or_three_channels(make_model):
    with pytest.raises(ValueError, match="1 or 3 channels, the model has 2; use arrays"):
        prsr.sample(image(2, 2), model=make_model(channels=2))


def test_unknown_engine_is_refused_by_name(make_model, lr):
    with pytest.raises(ValueError, match="no engine 'fast'"):
        prsr.sample(lr, model=make_model(), engine="fast")


@pytest.mark.parametrize("num_samples", [None, 3])
def test_empty_batch_gives_an_empty_result(sampler, lr, num_samples):
    known, mask = KNOWN[:0], MASK[:0]
    call = {"num_samples": num_samples, "known": known, "mask": mask}
    result = sampler.sample(lr[:0], torch.ones(0), **call)
    assert result.shape == ((0, D, H, W) if num_samples is None else (0, 3, D, H, W))
    assert result.dtype == torch.uint8


def test_extreme_but_valid_arguments_are_accepted(sampler):
    lr = torch.full((1, 3, 1, 1), 7, dtype=torch.uint8)
    assert sampler.sample(lr, seed=0).shape == (1, 3, 2, 2)
    assert sampler.sample(lr, 1, seed=2**64 - 1, first_index=2**63 - 2).shape == (1, 3, 2, 2)
