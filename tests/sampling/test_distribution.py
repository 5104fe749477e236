"""Image frequencies match p(y|x), on models small enough to enumerate every image."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

import prsr
from prsr import Sampler
from prsr.testing import cdf_violation

DRAWS = 4000
LEAST_P = 1e-4  # p-value of the chi-square test; that of a wrong sampler is far lower

# Models with 16 possible images of one colour and 64 of three colours.
SMALL = {
    "grey": {"channels": 1, "levels": 2, "scale": 2, "gain": 2},
    "colour": {"channels": 3, "levels": 4, "scale": 1, "prior_layers": 1, "gain": 2},
}


@pytest.fixture(params=SMALL)
def small(request, make_model):
    """A model, a low-resolution pixel, and every possible image."""
    model = make_model(seed=0, **SMALL[request.param])
    config = model.config
    lr = torch.ones((1, config.channels, 1, 1), dtype=torch.uint8)
    shape = (config.channels, config.scale, config.scale)
    values = itertools.product(range(config.levels), repeat=config.channels * config.scale**2)
    images = torch.tensor(list(values), dtype=torch.uint8).view(-1, *shape)
    return model, lr, images


def probabilities(model, lr, images, temperature=1.0, drawn=None):
    """Probability of each image, ``float64``, given the sub-pixels outside ``drawn``, if any."""
    with torch.no_grad():
        logits = model(lr.expand(len(images), -1, -1, -1), images).logits.double()
    log_p = (logits / temperature).log_softmax(dim=1)
    log_p = log_p.gather(1, images.long()[:, None])[:, 0]
    return (log_p if drawn is None else log_p * drawn).flatten(1).sum(dim=1).exp()


def chi_square_p(expected, images, samples):
    """p-value of the chi-square test of image counts; rare images are pooled."""
    place = (samples[:, None] == images[None]).flatten(2).all(dim=2).int().argmax(dim=1)
    counts = torch.bincount(place, minlength=len(images)).double()
    means = expected * len(samples)
    rare = means < 10
    counts, means = (torch.cat((v[~rare], v[rare].sum()[None])) for v in (counts, means))
    counts, means = counts[means > 0], means[means > 0]
    return stats.chisquare(counts, means * counts.sum() / means.sum()).pvalue


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("engine", ["torch", "reference"])
def test_image_frequencies_match_their_probabilities(small, engine, temperature):
    model, lr, images = small
    sampler = Sampler(model, engine=engine)
    samples = sampler.sample(lr, temperature, seed=1, num_samples=DRAWS)[0]
    expected = probabilities(model, lr, images, temperature)
    assert_close(expected.sum().item(), 1.0)
    assert chi_square_p(expected, images, samples) > LEAST_P
    # The test rejects another temperature and another model.
    other = probabilities(model, lr, images, 1.5 - temperature)
    assert chi_square_p(other, images, samples) < LEAST_P
    assert chi_square_p(expected.roll(1), images, samples) < LEAST_P
    # It rejects sub-pixels with the right marginals that are independent of each other.
    alone = [values.roll(i) for i, values in enumerate(samples.flatten(1).T)]
    alone = torch.stack(alone, dim=1).view_as(samples)
    assert chi_square_p(expected, images, alone) < LEAST_P


def test_image_frequencies_in_a_batch_match_their_probabilities(small):
    model, lr, images = small
    samples = Sampler(model).sample(lr.expand(DRAWS, -1, -1, -1), seed=2)
    assert chi_square_p(probabilities(model, lr, images), images, samples) > LEAST_P


@pytest.fixture(params=[0, 1, -1], ids=["first", "second", "last"])
def completed(request, small):
    """A mask of one known sub-pixel, by its place in raster order, and the known image."""
    channels, height, width = small[2].shape[1:]
    mask = torch.zeros(height * width * channels, dtype=torch.bool)
    mask[request.param] = True
    return mask.view(height, width, channels).permute(2, 0, 1), torch.ones_like(small[2][:1])


@pytest.mark.parametrize("engine", ["torch", "reference"])
def test_completion_frequencies_match_their_conditional_probabilities(small, completed, engine):
    (model, lr, images), (mask, known) = small, completed
    sampler = Sampler(model, engine=engine)
    samples = sampler.sample(lr, seed=1, num_samples=DRAWS, known=known, mask=mask)[0]
    fitting = images[(images[:, mask] == 1).all(dim=1)]
    expected = probabilities(model, lr, fitting, drawn=~mask)
    assert bool((samples[:, mask] == 1).all())
    assert_close(expected.sum().item(), 1.0)
    assert chi_square_p(expected, fitting, samples) > LEAST_P
    assert chi_square_p(expected.roll(1), fitting, samples) < LEAST_P


def test_sub_pixels_after_a_known_one_are_conditioned_on_it(small):
    model, lr, images = small
    known, first = torch.ones_like(images[:1]), (..., 0, 0, 0)
    mask = torch.zeros_like(known, dtype=torch.bool)
    mask[first] = True
    fitting = images[images[first] == 1]
    expected = probabilities(model, lr, fitting, drawn=~mask)
    # Pasting the known sub-pixel into a finished sample would give another distribution.
    pasted = Sampler(model).sample(lr, seed=1, num_samples=DRAWS)[0]
    pasted[first] = 1
    assert chi_square_p(expected, fitting, pasted) < LEAST_P


def scene(make_model, make_images):
    model = make_model()
    lr = make_images(model.config, 4, 2, 3)
    return model, lr, make_images(model.config, 4, 4, 6, seed=1)


@pytest.mark.parametrize("shape", [(4, 3, 4, 6), (6,), (4, 1), (3, 1, 1), (4, 1, 1, 1), ()])
@pytest.mark.parametrize("engine", ["torch", "reference"])
def test_masked_sub_pixels_are_kept_and_the_others_follow_the_noise(
    make_model, make_images, engine, shape
):
    model, lr, known = scene(make_model, make_images)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.5
    sampler = Sampler(model, engine=engine)
    image = sampler.sample(lr, 0.8, seed=1, known=known, mask=mask)
    full = mask.broadcast_to(known.shape)
    assert torch.equal(image[full], known[full])
    assert torch.equal(image, sampler.sample(lr, 0.8, seed=1, known=known, mask=full))
    noise = prsr.noise(1, 4, 4, 6, 3)
    assert cdf_violation(model, lr, image, noise, 0.8, full).max() <= 1e-4


@pytest.mark.parametrize("engine", ["torch", "reference"])
def test_known_levels_outside_the_mask_have_no_influence(make_model, make_images, engine):
    model, lr, known = scene(make_model, make_images)
    sampler = Sampler(model, engine=engine)
    none = torch.zeros_like(known, dtype=torch.bool)
    assert torch.equal(
        sampler.sample(lr, seed=1, known=known, mask=none), sampler.sample(lr, seed=1)
    )
    half = none.clone()
    half[..., :2, :] = True
    other = torch.where(half, known, 7 - known)
    first, second = (sampler.sample(lr, seed=1, known=k, mask=half) for k in (known, other))
    assert torch.equal(first, second)


def test_completing_with_the_sample_itself_or_a_full_image_returns_it(make_model, make_images):
    model, lr, known = scene(make_model, make_images)
    sampler = Sampler(model)
    image = sampler.sample(lr, seed=1)
    some = torch.rand(known.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(sampler.sample(lr, seed=1, known=image, mask=some), image)
    everything = torch.tensor(True)
    assert torch.equal(sampler.sample(lr, seed=1, known=known, mask=everything), known)


def test_known_sub_pixels_are_kept_in_every_sample(make_model, make_images):
    model, lr, known = scene(make_model, make_images)
    mask = torch.tensor([True, False, False])[:, None, None]
    images = Sampler(model).sample(lr, seed=1, num_samples=3, known=known, mask=mask)
    assert torch.equal(images[:, :, 0], known[:, None, 0].expand(-1, 3, -1, -1))
    for s in range(3):
        noise, full = prsr.noise(1, 4, 4, 6, 3, sample=s), mask.expand_as(known)
        assert cdf_violation(model, lr, images[:, s], noise, 1.0, full).max() <= 1e-4
