"""The conditioning network in C++: what PyTorch computes, and the same bits in any batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import prsr
from prsr import PRESETS
from prsr.engines.base import Job, LastLayer
from prsr.engines.cpu import CPUEngine
from prsr.engines.cpu_conditioning import compute, kinds_of_steps, limit_of_inputs, pack
from prsr.engines.native import instruction_sets
from prsr.models.networks import ConditioningNetwork, to_network_input
from prsr.sampling.conditioning import Conditioner

pytestmark = [
    pytest.mark.sanitize,
    pytest.mark.skipif(
        not instruction_sets(), reason="the extension is not built: there was no compiler"
    ),
]


def compute_with(network, lr, **options):
    packed = pack(network, network.config)
    assert packed is not None
    return compute(packed, lr, **options)


# Widths that fill no vector, one that fills several blocks of weights; every number of blocks and
# doublings from none on; images one pixel high or wide.
CASES = [
    ({}, (3, 4)),
    ({"scale": 1}, (1, 1)),
    ({"scale": 1, "conditioning_blocks": 0}, (2, 3)),
    ({"conditioning_blocks": 0, "channels": 1, "conditioning_channels": 1}, (1, 5)),
    ({"scale": 4, "conditioning_blocks": 2, "conditioning_channels": 33}, (5, 1)),
    ({"scale": 8, "conditioning_channels": 16, "levels": 100}, (2, 7)),
    ({"conditioning_channels": 130, "conditional_gates": True}, (3, 2)),
]


@pytest.mark.instruction_set
@pytest.mark.parametrize(("changes", "size"), CASES)
def test_every_step_is_what_pytorch_computes(make_model, make_images, changes, size):
    network = make_model(gain=1, **changes).conditioning
    lr = make_images(network.config, 2, *size)
    layers = iter(network)
    with torch.no_grad():
        x = next(layers)(to_network_input(lr, network.config.levels))
        for step, kind in enumerate(kinds_of_steps(network.config)):
            _, found, _ = compute_with(network, lr, steps=step)
            assert_close(found, x, atol=1e-5, rtol=1e-5)
            x = next(layers)(x)
            if kind is nn.ConvTranspose2d:
                x = next(layers)(x)  # its ReLU


@pytest.mark.instruction_set
@pytest.mark.parametrize(("changes", "size"), CASES)
def test_logits_and_features_are_what_pytorch_computes(make_model, make_images, changes, size):
    model = make_model(gain=1, **changes)
    lr = make_images(model.config, 3, *size)
    with torch.no_grad():
        logits, features = model.conditioning(lr, with_features=True)
    found = Conditioner(model.conditioning.train(), model.config, lr.device)(lr)
    assert_close(found.logits, logits, atol=1e-5, rtol=1e-5)
    assert_close(found.features, features[:, : model.config.gate_inputs], atol=1e-5, rtol=1e-5)
    assert found.logits.stride(1) == 1  # as a draw reads them


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("tiny", marks=(pytest.mark.quick, pytest.mark.instruction_set)),
        pytest.param("digits", marks=pytest.mark.large),
    ],
)
def test_an_image_is_the_same_to_a_bit_with_any_threads_and_in_any_batch(
    make_model, make_images, threads, name
):
    model = make_model(config=PRESETS[name], conditional_gates=True)
    lr = make_images(model.config, 9, 5, 4)
    threads(1)
    expected = compute_with(model.conditioning, lr)
    for count in (1, 2, 3, 5, 20):
        threads(count)
        for images in (slice(0, 9), slice(0, 1), slice(3, 5), slice(4, 9)):
            found = compute_with(model.conditioning, lr[images])
            assert torch.equal(found[0], expected[0][images])
            assert torch.equal(found[1], expected[1][images])


def change_weight(network):
    network[1][3].weight.data *= 2


def change_statistics(network):
    network[1][1].running_var.data *= 2


@pytest.mark.parametrize("change", [change_weight, change_statistics])
def test_weights_that_change_are_noticed(make_model, make_images, change):
    model = make_model()
    lr = make_images(model.config, 1, 2, 2)
    before, *_ = compute_with(model.conditioning, lr)
    change(model.conditioning)
    after, *_ = compute_with(model.conditioning, lr)
    assert not torch.equal(before, after)
    with torch.no_grad():
        assert_close(after, model.conditioning(lr), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("layer", [-1, 0])
@pytest.mark.parametrize("last_layer", [False, True])
def test_what_is_not_finite_is_refused(
    make_model, make_images, threads, last_layer, layer, value, count
):
    threads(count)
    model = make_model(conditional_gates=True)
    model.conditioning[layer].bias.data[-1] = value
    lr = make_images(model.config, 3, 2, 2)
    conditioner = Conditioner(model.conditioning, model.config, lr.device, last_layer=last_layer)
    with pytest.raises(ValueError, match=r"the conditioning network's logits must be finite"):
        conditioner(lr)


@pytest.mark.parametrize("pixel", [(0, 0), (4, 6)])
@pytest.mark.parametrize("level", [0, -1])
def test_one_value_that_is_not_finite_is_noticed(make_model, threads, pixel, level):
    threads(2)
    model = make_model(scale=1, conditioning_blocks=0, channels=1, levels=37)
    first, last = model.conditioning
    with torch.no_grad():
        for layer in (first, last):
            layer.weight.zero_()
        first.weight += 1e20
        first.bias.fill_(0.5e20)  # features are 0 where the image is black
        last.weight[level] = 1e20
    lr = torch.zeros(1, 1, 5, 7, dtype=torch.uint8)
    Conditioner(model.conditioning, model.config, lr.device)(lr)
    lr[0, 0][pixel] = 36
    logits, _, finite = compute_with(model.conditioning, lr)
    assert not finite
    assert int(logits.isinf().sum()) == 1


@pytest.mark.quick
@pytest.mark.instruction_set
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("changes", "size"), CASES)
def test_logits_computed_row_by_row_give_the_same_images(
    make_model, make_images, threads, changes, size, precision
):
    """One kernel computes them either way (csrc/cpu/last_layer.h): only places can be wrong."""
    model = make_model(gain=1, **changes)
    config = model.config
    lr = make_images(config, 18, *size)
    height, width = (config.scale * side for side in size)
    engine = CPUEngine()
    packed = engine.pack(model.prior, precision)
    noise = prsr.noise(1, 18, height, width, config.channels)
    for count in (1, 2):
        threads(count)
        for n in (1, 3, 18):  # a team, one by one, in bundles and one by one
            images = []
            for last_layer in (False, True):
                conditioner = Conditioner(
                    model.conditioning, config, lr.device, last_layer=last_layer
                )
                assert conditioner.defers_logits == last_layer
                conditioning = conditioner(lr[:n])
                assert isinstance(conditioning.logits, LastLayer) == last_layer
                image = torch.zeros((n, config.channels, height, width), dtype=torch.uint8)
                job = Job(*conditioning, noise[:n], torch.ones(n), None, image)
                engine.rows(engine.start(packed, job), 0, height)
                images.append(image)
            assert torch.equal(*images)


@pytest.mark.parametrize("last_layer", [False, True])
@pytest.mark.parametrize("feature", [-1e30, 1e30])
def test_large_features_do_not_forgo_the_check_of_all_logits(make_model, feature, last_layer):
    """The features are beyond the limit that their weights prove, but no logit overflows."""
    model = make_model(scale=1, conditioning_blocks=0, channels=1, levels=37)
    first, last = model.conditioning
    with torch.no_grad():
        first.weight.zero_()
        first.bias.fill_(feature)
        last.weight[0] = 1e8  # the positive and negative products cancel each other
        last.weight[0, ::2] *= -1
        last.weight[1:] = 0
    lr = torch.zeros(2, 1, 2, 3, dtype=torch.uint8)
    logits, _, finite = compute_with(model.conditioning, lr)
    assert not finite
    assert bool(logits.isfinite().all())
    conditioner = Conditioner(model.conditioning, model.config, lr.device, last_layer=last_layer)
    found = conditioner(lr).logits
    if last_layer:
        assert isinstance(found, LastLayer)
    else:
        assert torch.equal(found, logits)


def test_limit_of_inputs_is_where_an_output_can_overflow():
    layer = nn.Conv2d(2, 3, 1)
    most = torch.finfo(torch.float32).max / 2
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        assert limit_of_inputs(layer) == most
        layer.weight[1] = torch.tensor([-3.0, 5.0])[:, None, None]
        assert limit_of_inputs(layer) == most / 8
        layer.bias[2] = -1e38
        assert limit_of_inputs(layer) == pytest.approx((most - 1e38) / 8)
        for value in (float("inf"), float("nan"), 3e38):
            layer.bias[2] = value
            assert limit_of_inputs(layer) == -1
        layer.bias[2] = 0
        layer.weight[0, 0] = float("nan")
        assert limit_of_inputs(layer) == -1


class Other(ConditioningNetwork):
    pass


def negative(network):
    network.forward = lambda lr: -ConditioningNetwork.forward(network, lr)


CHANGES = {
    "hook": lambda network: network[1].register_forward_hook(lambda *_: None),
    "hook before": lambda network: network[2].register_forward_pre_hook(lambda *_: None),
    "forward": negative,
    "class": lambda network: setattr(network, "__class__", Other),
    "module": lambda network: network[1].__setitem__(2, nn.LeakyReLU()),
    "further module": lambda network: network.append(nn.Identity()),
    "setting": lambda network: setattr(network[1][0], "padding_mode", "circular"),
    "epsilon": lambda network: setattr(network[1][1], "eps", 0.1),
    "statistics": lambda network: setattr(network[1][1], "running_mean", None),
    "shape": lambda network: setattr(network[0], "bias", None),
    "dtype": lambda network: network.double(),
    "device": lambda network: network[1].to("meta"),
    "parametrization": lambda network: nn.utils.parametrizations.weight_norm(network[0]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_network_that_was_changed_runs_in_pytorch(make_model, change):
    model = make_model()
    assert pack(model.conditioning, model.config) is not None
    CHANGES[change](model.conditioning)
    assert pack(model.conditioning, model.config) is None


def test_hooks_of_all_modules_are_heard(make_model, make_images):
    model = make_model()
    heard = []
    handle = nn.modules.module.register_module_forward_hook(lambda *call: heard.append(call[0]))
    try:
        assert pack(model.conditioning, model.config) is None
        lr = make_images(model.config, 1, 2, 2)
        Conditioner(model.conditioning, model.config, lr.device)(lr)
    finally:
        handle.remove()
    assert model.conditioning in heard
    assert pack(model.conditioning, model.config) is not None
