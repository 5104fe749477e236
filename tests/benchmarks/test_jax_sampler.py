"""The comparator in JAX samples the same images as the engine ``reference``."""

from __future__ import annotations

import pytest
import torch

import prsr
from benchmarks.jax_sampler import sampler
from prsr.engines.base import Job
from prsr.engines.grouped_weights import pack_prior
from prsr.engines.reference import ReferenceEngine
from prsr.sampling.conditioning import Conditioner
from prsr.testing import cdf_violation

pytest.importorskip("jax", reason="JAX, with which only the benchmark compares, is not installed")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"conditional_gates": True},
        # Groups of unequal size; wider kernels, which reach beyond the image.
        {"prior_channels": 7, "head_channels": 11, "prior_kernel": 5, "first_kernel": 7},
        {"channels": 1, "prior_layers": 1, "levels": 256},
    ],
)
def test_images_are_those_of_the_reference(make_model, make_images, changes, threads):
    model = make_model(**changes)
    config, n = model.config, 3
    lr = make_images(config, n, 2, 3)
    height, width = 2 * config.scale, 3 * config.scale
    noise = prsr.noise(0, n, height, width, config.channels)
    temperature = torch.tensor([0.5, 1.0, 2.0])
    image = torch.zeros(n, config.channels, height, width, dtype=torch.uint8)
    with torch.no_grad():
        conditioning = Conditioner(model.conditioning, config, lr.device)(lr)
        job = Job(*conditioning, noise, temperature, None, image)
        engine = ReferenceEngine()
        state = engine.start(engine.pack(model.prior, "fp32"), job)
        engine.rows(state, 0, height)
    found = sampler(pack_prior(model.prior), job, threads)()
    # With these seeds no u is so close to an edge of the CDF that rounding decides.
    assert torch.equal(found, image)
    assert cdf_violation(model, lr, found, noise, temperature).max() <= 1e-4
