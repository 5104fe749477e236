"""Samples use a model's effective weights: pruned, normalised, parametrised or wrapped."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from prsr import PRSR, Sampler, noise, prsr_loss
from prsr.models.layers import RowConvolution
from prsr.testing import cdf_violation

ENGINES = ["cpu", "torch", "reference"]
LAYERS = ["prior.head.2", "prior.head.0", "prior.blocks.0.vertical", "prior.first_horizontal"]


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def pairs(model, make_images):
    return make_images(model.config, 2, 2, 2), make_images(model.config, 2, 4, 4, 1)


def last_layers(model):
    return model.prior.head[2], model.conditioning[-1]


def step(model, pairs):
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    prsr_loss(model(*pairs), pairs[1]).backward()
    optimiser.step()
    optimiser.zero_grad()
    model.eval()


def test_hooks_of_the_last_layers_are_called(model, pairs):
    fired = []
    for layer in last_layers(model):
        layer.register_forward_hook(lambda layer, inputs, output: fired.append(output.shape))
        layer.register_full_backward_hook(lambda layer, grads, outputs: fired.append(layer))
    logits = model(*pairs).logits
    assert fired == [logits.shape] * 2
    logits.sum().backward()
    assert set(fired[2:]) == set(last_layers(model))


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: prune.random_structured(layer, "weight", 0.5, dim=0),
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
    ],
)
def test_a_changed_layer_trains(model, pairs, change):
    for layer in last_layers(model):
        change(layer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step(model, pairs)
    step(model, pairs)
    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    for place in ("prior.head.2.", "conditioning."):
        own = [name for name in changed if name.startswith(place) and "weight" in name]
        assert own, place
    if change is nn.utils.spectral_norm:
        assert {"prior.head.2.weight_u", "prior.head.2.weight_orig"} <= changed


CHANGES = {
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "old weight_norm": lambda layer: nn.utils.weight_norm(layer),
    "old spectral_norm": lambda layer: nn.utils.spectral_norm(layer),
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CHANGES)
def test_effective_weights_are_sampled(model, pairs, engine, name):
    sampler = Sampler(model, engine=engine)
    lr = pairs[0]
    plain = sampler.sample(lr, seed=1)
    last = f"conditioning.{len(model.conditioning) - 1}"
    for layer in [*LAYERS, last, "conditioning.0"]:
        CHANGES[name](model.get_submodule(layer))
    for _ in range(2):
        drawn = sampler.sample(lr, seed=1)
        shape = (model.config.scale * lr.shape[2], model.config.scale * lr.shape[3])
        given = noise(1, len(lr), *shape, model.config.channels)
        assert float(cdf_violation(model, lr, drawn, given, 1.0).max()) < 1e-4
        step(model, pairs)
    assert name == "weight_norm" or name == "old weight_norm" or not torch.equal(plain, drawn)
    kept = copy.deepcopy(model.state_dict())
    sampler.sample(lr, seed=1)
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_weight_pruned_again_takes_effect(model, pairs, engine):
    sampler = Sampler(model, engine=engine)
    layer = model.prior.head[2]
    prune.l1_unstructured(layer, "weight", 0.1)
    sampler.sample(pairs[0], seed=1)
    layer.weight_mask.zero_()  # without a forward pass afterwards
    drawn = sampler.sample(pairs[0], seed=1)
    prune.remove(layer, "weight")
    assert not layer.weight.any()
    assert torch.equal(Sampler(model, engine=engine).sample(pairs[0], seed=1), drawn)


class Adapted(nn.Module):
    """A layer that wraps another, as low-rank adapters do."""

    def __init__(self, layer):
        super().__init__()
        self.base_layer = layer
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x):
        return 2 * self.base_layer(x)


class Doubled(RowConvolution):
    """A layer with the same weights but another function."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("change", ["another class", "another function"])
@pytest.mark.parametrize("engine", ["cpu", "torch"])
def test_a_layer_that_computes_something_else_is_refused(model, pairs, engine, change):
    mix = model.prior.blocks[0].mix
    if change == "another function":
        mix.forward = lambda x: x
    else:
        mix.__class__ = Doubled
    with pytest.raises(ValueError, match=r"prior\.blocks\.0\.mix must be RowConvolution"):
        Sampler(model, engine=engine).sample(pairs[0], seed=1)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_wrapped_layer_is_refused_except_by_the_reference_engine(model, pairs, engine):
    model.prior.blocks[0].mix = Adapted(model.prior.blocks[0].mix)
    if engine == "reference":
        drawn = Sampler(model, engine=engine).sample(pairs[0], seed=1)
        given = noise(1, 2, 4, 4, 3)
        assert float(cdf_violation(model, pairs[0], drawn, given, 1.0).max()) < 1e-4
        return
    with pytest.raises(ValueError, match=r"prior\.blocks\.0\.mix.* must be .*engine='reference'"):
        Sampler(model, engine=engine).sample(pairs[0], seed=1)


@pytest.mark.parametrize("engine", ENGINES)
def test_effective_weights_must_be_finite(model, pairs, engine):
    class Infinite(nn.Module):
        def forward(self, weight):
            return weight / 0

    parametrize.register_parametrization(model.prior.head[2], "weight", Infinite())
    with pytest.raises(ValueError, match=r"effective weight prior\.head\.2\.weight must be finite"):
        Sampler(model, engine=engine).sample(pairs[0], seed=1)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_compiled_prior_is_sampled_and_saved_under_plain_names(model, pairs, engine, tmp_path):
    expected = Sampler(model, engine=engine).sample(pairs[0], seed=1)
    model.prior = torch.compile(model.prior, backend="eager")
    model.conditioning = torch.compile(model.conditioning, backend="eager")
    assert torch.equal(Sampler(model, engine=engine).sample(pairs[0], seed=1), expected)
    model.save_pretrained(tmp_path / "model")
    loaded = PRSR.from_pretrained(tmp_path / "model")
    assert torch.equal(Sampler(loaded, engine=engine).sample(pairs[0], seed=1), expected)


def test_wrapped_parts_are_saved_under_plain_names(model, tmp_path):
    weights = model.state_dict()
    model.conditioning = nn.DataParallel(model.conditioning)
    model.prior.blocks[0] = torch.compile(model.prior.blocks[0])
    model.save_pretrained(tmp_path / "model")
    loaded = PRSR.from_pretrained(tmp_path / "model").state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_a_model_that_could_not_be_loaded_is_not_saved(model, tmp_path):
    prune.l1_unstructured(model.prior.head[2], "weight", 0.5)
    with pytest.raises(ValueError, match=r"but prior\.head\.2\.weight should be .*, is absent"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
