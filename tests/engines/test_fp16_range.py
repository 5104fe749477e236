"""How large numbers become, as proven from the weights and measured features."""

import pytest
import torch

from prsr.engines import fp16_range as ranges
from prsr.engines.base import Job
from prsr.engines.cuda import CUDAEngine
from prsr.engines.grouped_weights import pack_prior
from prsr.engines.triton import TritonEngine

ENGINES = [CUDAEngine(), TritonEngine()]


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("gain", [0.5, 4.0])
def test_no_operand_exceeds_the_bound(make_model, gain, gated):
    """And the bound is not far above what weights of one sign reach."""
    model = make_model(gain=gain, prior_channels=8, conditional_gates=gated)
    with torch.no_grad():
        for parameter in model.prior.parameters():
            parameter.abs_()
    features = torch.rand(2, model.config.gate_inputs, 12, 12) * 300
    bounds = ranges.Bounds.of(pack_prior(model.prior))
    bound = max(bounds.largest(), bounds.largest_with(features) if gated else 0)
    seen = []
    for block in model.prior.blocks:
        layers = [block.vertical, block.link, block.horizontal, block.mix]
        layers += [block.conditional_vertical, block.conditional_horizontal] if gated else []
        for layer in layers:
            layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].abs().max()))
    for layer in (model.prior.head[0], model.prior.head[2]):
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].abs().max()))
    images = torch.full((2, 3, 12, 12), model.config.levels - 1, dtype=torch.uint8)
    with torch.no_grad():
        model.prior(images, features)
    # But for the rounding of sums.
    assert max(seen) <= 1.0001 * bound
    assert bound <= 3 * max(seen)


@pytest.mark.parametrize(
    "of", [lambda p: p.head[0], lambda p: p.blocks[-1].mix, lambda p: p.blocks[-1].vertical]
)
def test_fp16_is_refused_where_it_might_overflow(make_model, of):
    model = make_model()
    with torch.no_grad():
        model.prior.head[0].weight.zero_()
        of(model.prior).bias[0] = 60000
    ranges.check_fp16(pack_prior(model.prior))
    with torch.no_grad():
        of(model.prior).bias[0] = 65600
    with pytest.raises(ValueError, match="precision must be fp32 or bf16 for this model"):
        ranges.check_fp16(pack_prior(model.prior))


def job_with(config, features):
    """A job of which an engine reads no more than the features, if it refuses them."""
    nothing = torch.empty(0)
    size = features.shape[2:]
    image = torch.zeros(len(features), config.channels, *size, dtype=torch.uint8)
    return Job(nothing, features, nothing, nothing, None, image)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_features_that_might_overflow_are_refused(make_model, engine):
    """By the pre-activations, and by the features themselves where their weights are small."""
    for weight, largest in (16.0, 4000.0), (0.0, 65000.0):
        model = make_model(conditional_gates=True)
        with torch.no_grad():
            for block in model.prior.blocks:
                block.conditional_vertical.weight.zero_()
            model.prior.blocks[-1].conditional_vertical.weight[3, 1] = weight
        packed = engine.pack(model.prior, "fp16")
        features = torch.ones(2, model.config.gate_inputs, 2, 2)
        features[1, 1, 1, 0] = -largest
        ranges.check_features(packed.bounds, features)
        features[1, 1, 1, 0] *= 1.03
        with pytest.raises(ValueError, match=r"conditional gates might reach .* for these images"):
            engine.start(packed, job_with(model.config, features))
        for precision in ("fp32", "bf16"):
            ranges.check_features(engine.pack(model.prior, precision).bounds, features)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_are_not_in_range(make_model, value):
    model = make_model(conditional_gates=True)
    bounds = ranges.check_fp16(pack_prior(model.prior))
    features = torch.full((1, model.config.gate_inputs, 1, 1), value)
    with pytest.raises(ValueError, match="for these images"):
        ranges.check_features(bounds, features)


def test_without_conditional_gates_nothing_is_measured(make_model):
    bounds = ranges.check_fp16(pack_prior(make_model().prior))
    ranges.check_features(bounds, torch.empty(3, 0, 2, 2, device="meta"))
