"""Hidden units that never fire get new weights; the model computes the same."""

import sys

import numpy as np
import pytest
import torch

from examples.portraits import revive
from examples.portraits.revive import FIRING, preactivations
from prsr import PRSR


def killed(model, units):
    """A model of which these hidden units never fire."""
    with torch.no_grad():
        model.prior.head[0].bias[units] = -1e3
    return model.eval()


@pytest.mark.parametrize("gates", [False, True])
def test_units_that_never_fire_do_so_without_changing_the_model(make_model, make_images, gates):
    model = killed(make_model(head_channels=11, conditional_gates=gates), [0, 1, 5, 10])
    lr, hr = make_images(model.config, 4, 8, 8), make_images(model.config, 4, 16, 16, seed=1)
    before = model(lr, hr).logits
    assert bool(before.isfinite().all())
    others = [2, 3, 4, 6, 7, 8, 9]
    kept = model.prior.head[0].weight[others].clone()

    dead = revive.revive(model, lr, hr)

    assert dead.nonzero().flatten().tolist() == [0, 1, 5, 10]
    assert torch.equal(model(lr, hr).logits, before)
    assert torch.equal(model.prior.head[0].weight[others], kept)
    units = preactivations(model, lr, hr)[1]
    rates = (units > 0).float().mean(0)[dead]
    assert torch.allclose(rates, torch.full_like(rates, FIRING), atol=2e-3)
    assert torch.allclose(units[:, dead].std(0), units[:, ~dead].std(), rtol=1e-3)


def test_new_units_are_trained(make_model, make_images):
    model = killed(make_model(head_channels=11), [1, 5])
    lr, hr = make_images(model.config, 4, 8, 8), make_images(model.config, 4, 16, 16, seed=1)
    model.train().loss(model(lr, hr), hr).backward()
    assert not bool(model.prior.head[0].weight.grad[[1, 5]].any())
    revive.revive(model, lr, hr)
    assert model.training
    for _ in range(2):  # gradients pass zero weights only after these have changed
        model.zero_grad()
        model.loss(model(lr, hr), hr).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 1e-2 * parameter.grad
    assert bool(model.prior.head[0].weight.grad[[1, 5]].flatten(1).any(1).all())


def test_a_model_none_of_whose_units_fire_is_refused(make_model, make_images):
    model = killed(make_model(head_channels=3), [0, 1, 2])
    images = make_images(model.config, 1, 4, 4), make_images(model.config, 1, 8, 8)
    with pytest.raises(ValueError, match="no hidden unit fires"):
        revive.revive(model, *images)


def test_the_command_writes_a_model(make_model, make_images, tmp_path, monkeypatch, capsys):
    model = killed(make_model(head_channels=11), [4])
    model.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "images.npy", make_images(model.config, 70, *model.config.high_size).numpy())
    command = ["revive.py", tmp_path / "model", "--data", tmp_path / "images.npy"]
    monkeypatch.setattr(sys, "argv", [*map(str, command), "--out", str(tmp_path / "out")])
    revive.main()
    assert capsys.readouterr().out == "1 of 11 hidden units have new weights.\n"
    changed = PRSR.from_pretrained(tmp_path / "out").prior.head
    weights = [head[0].weight.flatten(1) for head in (changed, model.prior.head)]
    assert (weights[0] != weights[1]).any(1).nonzero().flatten().tolist() == [4]
