"""A grown model computes what the small one does."""

import dataclasses

import pytest
import torch

from examples.faces.grow import grow


def test_a_grown_model_computes_the_same_logits_and_trains(make_model, make_images):
    small = make_model(prior_layers=2, prior_kernel=3, head_channels=7, conditioning_blocks=1)
    large = dataclasses.replace(
        small.config, prior_layers=4, prior_kernel=7, head_channels=16, conditioning_blocks=3
    )
    lr, hr = make_images(small.config, 2, 2, 3), make_images(small.config, 2, 4, 6)
    grown = grow(small.double(), large).double()
    expected, found = small.eval()(lr, hr), grown.eval()(lr, hr)
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)

    optimiser = torch.optim.SGD(grown.parameters(), lr=1e-3)
    for _ in range(3):  # gradients pass zero weights only after these have changed
        optimiser.zero_grad()
        grown.loss(grown(lr, hr), hr).backward()
        optimiser.step()
    for name, parameter in grown.named_parameters():
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("gates", [False, True])
def test_a_model_gains_or_keeps_conditional_gates(make_model, make_images, gates):
    small = make_model(prior_layers=2, conditional_gates=gates).double()
    large = dataclasses.replace(small.config, prior_layers=3, conditional_gates=True)
    lr, hr = make_images(small.config, 2, 2, 3), make_images(small.config, 2, 4, 6)
    grown = grow(small, large).double()
    assert grown.prior.blocks[2].conditional_vertical.weight.count_nonzero() == 0
    for one, other in zip(small(lr, hr), grown(lr, hr), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("change", [{"prior_layers": 1}, {"prior_channels": 64}, {"levels": 16}])
def test_fields_that_cannot_grow_are_refused(make_model, change):
    model = make_model(prior_layers=2)
    name = next(iter(change))
    with pytest.raises(ValueError, match=f"{name} cannot go from"):
        grow(model, dataclasses.replace(model.config, **change))
