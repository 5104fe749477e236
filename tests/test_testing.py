"""The comparator that checks samples: it must accept correct ones only."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

import prsr
from prsr.testing import cdf_violation, divergence_distance

EPSILON = 1e-4  # docs/SPEC.md, section 2, for fp32


@pytest.fixture(scope="module")
def finished(make_model, make_images):
    """A model, low-resolution images, a correct sample of each, and the noise."""
    model = make_model(gain=1.5)
    lr = make_images(model.config, 3, 3, 2)
    image = prsr.sample(lr, model=model, seed=0, engine="reference")
    return model, lr, image, prsr.noise(0, 3, 6, 4, 3)


def test_comparator_accepts_samples_of_the_reference_engine(finished):
    assert cdf_violation(*finished, 1.0).max() <= 1e-6
    assert divergence_distance(finished[0], finished[1], finished[2], *finished[2:]).max() == 0


def test_comparator_runs_the_model_in_eval_mode_and_restores_its_mode(finished):
    model = copy.deepcopy(finished[0]).train()
    assert cdf_violation(model, *finished[1:], 1.0).max() <= 1e-6
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("step", [1, 4, 7])
def test_comparator_rejects_any_single_changed_sub_pixel(finished, step):
    model, lr, hr, noise = finished
    count = hr[0].numel()
    changed = hr[:1].repeat(count, 1, 1, 1)
    flat = changed.view(count, count)
    index = torch.arange(count)
    flat[index, index] = (flat[index, index] + step) % model.config.levels
    outside = cdf_violation(
        model, lr[:1].expand(count, -1, -1, -1), changed, noise[:1].expand(count, -1, -1, -1), 1.0
    )
    assert bool((outside > EPSILON).all())


def test_comparator_rejects_other_noise(finished):
    model, lr, hr, noise = finished
    for other in (1 - noise, noise.roll(1, 0), noise.flip(3), prsr.noise(1, *noise.shape)):
        assert cdf_violation(model, lr, hr, other, 1.0).min() > EPSILON


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0, torch.tensor([0.5, 0.9, 1.1])])
def test_comparator_rejects_another_temperature(finished, temperature):
    assert cdf_violation(*finished, temperature).min() > EPSILON


@pytest.mark.parametrize("part", ["prior", "conditioning"])
def test_comparator_rejects_another_model(finished, make_model, part):
    other = make_model(gain=1.5)
    for parameter in getattr(other, part).parameters():
        parameter.data.neg_()
    assert cdf_violation(other, *finished[1:], 1.0).min() > EPSILON


@pytest.mark.parametrize("temperature", [-1.0, float("nan"), torch.ones(2)])
def test_comparator_refuses_an_invalid_temperature(finished, temperature):
    with pytest.raises(ValueError, match="temperature must be"):
        cdf_violation(*finished, temperature)


def test_comparator_refuses_noise_of_another_shape(finished):
    model, lr, hr, noise = finished
    for other in (noise[:1], noise.transpose(1, 2), noise[..., :1]):
        with pytest.raises(ValueError, match=r"noise must be \[3, 6, 4, 3\]"):
            cdf_violation(model, lr, hr, other, 1.0)


def test_comparator_refuses_levels_above_the_models(finished):
    model, lr, hr, noise = finished
    with pytest.raises(ValueError, match="hr must hold values below 8"):
        cdf_violation(model, lr, hr + 8, noise, 1.0)


def test_comparator_rejects_nan(finished, make_model):
    other = make_model(gain=1.5)
    other.prior.head[2].bias.data[0] = torch.nan
    assert not bool((cdf_violation(other, *finished[1:], 1.0) <= EPSILON).any())


def test_comparator_ignores_only_masked_sub_pixels(finished):
    model, lr, hr, noise = finished
    mask = torch.zeros(hr.shape, dtype=torch.bool)
    mask[:, :, -1, -1] = True
    changed = torch.where(mask, (hr + 4) % model.config.levels, hr)
    assert cdf_violation(model, lr, changed, noise, 1.0).min() > EPSILON
    assert cdf_violation(model, lr, changed, noise, 1.0, mask).max() <= 1e-6
    assert cdf_violation(model, lr, changed, noise, 1.0, mask.flip(3)).min() > EPSILON


def test_divergence_distance_is_from_u_to_the_cdf_edge_where_images_diverge(finished):
    model, lr, hr, noise = finished
    other = hr.clone()
    other[0, 1, 2, 1:] = (other[0, 1, 2, 1:] + 1) % model.config.levels  # diverges at y=2, x=1, c=1
    other[0, 0, 3] = 0
    distance = divergence_distance(model, lr, hr, other, noise)
    p = model(lr, hr).logits.detach().double().softmax(dim=1)[0, :, 1, 2, 1]
    u, level = noise[0, 2, 1, 1].double(), int(other[0, 1, 2, 1])
    edges = torch.stack((p[:level].sum() - u, u - p[: level + 1].sum()))
    assert_close(distance[0], edges.max(), atol=1e-6, rtol=0)
    assert distance[0] > EPSILON
    assert distance[1:].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        (torch.zeros(3, 3, 6, 5, dtype=torch.bool), ValueError),
        (torch.zeros(3, 3, 6, 4), TypeError),
        (True, TypeError),
    ],
)
def test_comparator_refuses_an_invalid_mask_by_name(finished, mask, error):
    with pytest.raises(error, match=r"^mask must be"):
        cdf_violation(*finished, 1.0, mask)


@pytest.mark.parametrize("value", [-1e-6, 1.0, 7.0, float("inf")])
def test_comparator_refuses_noise_out_of_range(finished, value):
    noise = finished[3].clone()
    noise[1, 2, 3, 0] = value
    with pytest.raises(ValueError, match=r"^noise must hold values in \[0, 1\)"):
        cdf_violation(*finished[:3], noise, 1.0)


@pytest.mark.parametrize("name", ["one", "other"])
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda images: images[:1], ValueError),
        (lambda images: images[..., :1], ValueError),
        (lambda images: images.float(), TypeError),
        (lambda images: images + 8, ValueError),
    ],
)
def test_divergence_refuses_invalid_images_by_name(finished, name, change, error):
    model, lr, image, noise = finished
    images = {"one": image, "other": image} | {name: change(image)}
    with pytest.raises(error, match=f"^{name} must"):
        divergence_distance(model, lr, **images, noise=noise)
