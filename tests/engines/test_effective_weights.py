"""Samples use a model's effective weights: pruned, normalised, parametrised or wrapped."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from prsr import PRSR, Sampler, noise, prsr_loss
from prsr.models.layers import HiddenUnits, RowConvolution
from prsr.models.networks import PriorNetwork
from prsr.testing import cdf_violation, with_rounded_operands

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


class Unmasked(RowConvolution):
    """A layer whose forward pass is inherited, but not what it calls."""

    def masked_weight(self):
        return 2 * self.weight


class OtherPrior(PriorNetwork):
    """A prior of the same layers that connects them differently."""

    def stacks(self, hr, features):
        return [(2 * v, 2 * h) for v, h in super().stacks(hr, features)]


def doubled(*call):
    """A hook that doubles a result."""
    result = call[-1]
    return tuple(map(doubled, result)) if isinstance(result, tuple) else 2 * result


def wrapped_and_hooked(prior):
    prior.blocks[0] = torch.compile(prior.blocks[0], backend="eager")
    prior.blocks[0].register_forward_hook(doubled)


OTHER_FUNCTIONS = {
    "class": lambda prior: setattr(prior.blocks[0].mix, "__class__", Doubled),
    "method": lambda prior: setattr(prior.blocks[0].mix, "__class__", Unmasked),
    "class of the prior": lambda prior: setattr(prior, "__class__", OtherPrior),
    "forward": lambda prior: setattr(prior.blocks[0].mix, "forward", lambda x: x),
    "setting": lambda prior: setattr(prior.blocks[0].link, "padding", (1, 1)),
    "reach": lambda prior: setattr(prior.first_horizontal, "reach", 0),
    "extra layer": lambda prior: prior.head.append(nn.Tanh()),
    "hook of a convolution": lambda prior: prior.head[0].register_forward_hook(doubled),
    "hook of a layer without weights": lambda prior: prior.head[1].register_forward_hook(doubled),
    "hook of a block": lambda prior: prior.blocks[1].register_forward_hook(doubled),
    "hook of the prior": lambda prior: prior.register_forward_hook(doubled),
    "hook with keywords": lambda prior: prior.head.register_forward_hook(
        lambda module, inputs, keywords, result: 2 * result, with_kwargs=True
    ),
    "hook before a convolution": lambda prior: prior.blocks[0].link.register_forward_pre_hook(
        doubled
    ),
    "hook of a wrapper": wrapped_and_hooked,
    "global hook": lambda prior: nn.modules.module.register_module_forward_hook(
        lambda module, inputs, result: 2 * result if module is prior.head[0] else None
    ),
    "global hook before": lambda prior: nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: (2 * inputs[0],) if module is prior.head[0] else None
    ),
}


SEPARATE = ("hook of a wrapper", "setting", "reach", "global hook before")
"""The first cannot be copied; the others are as good as one more name."""


@pytest.fixture
def no_global_hooks():
    """Remove global hooks after the test."""
    kinds = ("_global_forward_hooks", "_global_forward_pre_hooks")
    yield
    for kind in kinds:
        getattr(nn.modules.module, kind).clear()


@pytest.mark.usefixtures("no_global_hooks")
@pytest.mark.parametrize("name", OTHER_FUNCTIONS)
@pytest.mark.parametrize("engine", ["cpu", "torch"])
def test_a_prior_that_computes_something_else_is_refused(model, pairs, engine, name):
    """Also by a sampler that has packed the weights already."""
    sampler = Sampler(model, engine=engine)
    sampler.sample(pairs[0], seed=1)
    OTHER_FUNCTIONS[name](model.prior)
    for call in (lambda: Sampler(model, engine=engine), lambda: sampler.sample(pairs[0], seed=1)):
        with pytest.raises(ValueError, match=r"(prior.* must be|must have no|no global).*'refer"):
            call()


@pytest.mark.usefixtures("no_global_hooks")
@pytest.mark.filterwarnings("ignore:.*many times slower")
@pytest.mark.parametrize("name", [name for name in OTHER_FUNCTIONS if name not in SEPARATE])
def test_auto_selects_the_engine_that_calls_such_a_prior(model, pairs, name):
    lr = pairs[0][:1]
    plain = Sampler(model).sample(lr, seed=1)
    if "global" not in name:
        OTHER_FUNCTIONS[name](model.prior)
    else:  # the prior is copied, so that the hook cannot recognise a module by its identity
        nn.modules.module.register_module_forward_hook(
            lambda module, inputs, result: -result if type(module) is HiddenUnits else None
        )
    sampler = Sampler(model)
    assert sampler.engine == "reference"
    drawn = sampler.sample(lr, seed=1)
    given = noise(1, 1, 4, 4, 3)
    assert float(cdf_violation(model, lr, drawn, given, 1.0).max()) < 1e-4
    assert float(cdf_violation(model, lr, plain, given, 1.0).max()) > 1e-4


@pytest.mark.filterwarnings("ignore:.*many times slower")
def test_hooks_that_cannot_be_copied_are_refused(model, pairs):
    wrapped_and_hooked(model.prior)
    with pytest.raises(
        ValueError, match=r"hooks of prior\.blocks\.0 must be registered on the mod"
    ):
        Sampler(model).sample(pairs[0], seed=1)


@pytest.mark.filterwarnings("ignore:.*many times slower")
def test_auto_samples_a_model_with_rounded_operands(model, pairs):
    rounded = with_rounded_operands(model, torch.float8_e5m2)
    drawn = Sampler(rounded).sample(pairs[0], seed=1)
    given = noise(1, 2, 4, 4, 3)
    assert float(cdf_violation(rounded, pairs[0], drawn, given, 1.0).max()) < 1e-4


def test_hooks_of_the_backward_pass_are_allowed(model, pairs):
    expected = Sampler(model).sample(pairs[0], seed=1)
    model.prior.head[0].register_full_backward_hook(lambda *call: None)
    model.prior.head[0].weight.register_hook(lambda gradient: gradient)
    assert Sampler(model).engine == "cpu"
    assert torch.equal(Sampler(model).sample(pairs[0], seed=1), expected)


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
