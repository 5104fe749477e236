"""Baselines: their definitions, training, saving, and the same calls as the model."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from prsr import PRSR, PRSRConfig, Sampler, noise
from prsr.data.dataset import SuperResolutionImages
from prsr.evaluation.model_metrics import mean_metrics
from prsr.models.baselines import Independent, Regression, Unconditional
from prsr.models.registry import MODELS, open_model
from prsr.sampling.interpolation import Bicubic, Nearest
from prsr.sampling.method_for import method_for
from prsr.training.loop import RunPlan, train
from prsr.training.settings import TrainSettings

TINY = PRSRConfig.preset("tiny")
CPU = torch.device("cpu")
TRAINED = sorted(MODELS)


def images(count=24, seed=0, config=TINY):
    """Images of a random colour with noise: learnable and all different."""
    rng = np.random.default_rng(seed)
    size = (config.scale * config.low_height, config.scale * config.low_width)
    pixels = rng.integers(0, 2, (count, config.channels, *size))
    pixels += rng.integers(0, config.levels - 1, (count, config.channels, 1, 1))
    return SuperResolutionImages(pixels.astype(np.uint8), config)


def blocks(count=24, seed=0):
    """Flat images with a bright block: easy to learn."""
    rng = np.random.default_rng(seed)
    pixels = np.empty((count, 3, 6, 6), np.uint8)
    pixels[:] = rng.integers(0, 4, (count, 3, 1, 1))
    pixels[:, :, 2:4, 2:4] += 4
    return SuperResolutionImages(pixels, TINY)


def build(method, seed=0):
    torch.manual_seed(seed)
    return MODELS[method](TINY).eval()


def test_bicubic_gives_the_values_of_pillow(make_images):
    config = dataclasses.replace(TINY, levels=256)
    lr = make_images(config, 2, 3, 4)
    enlarged = Bicubic(config).sample(lr)
    for low, high in zip(lr, enlarged, strict=True):
        image = Image.fromarray(low.permute(1, 2, 0).numpy()).resize(
            (8, 6), Image.Resampling.BICUBIC
        )
        assert np.array_equal(np.asarray(image), high.permute(1, 2, 0).numpy())


def test_bicubic_stays_within_the_levels(make_images):
    lr = make_images(TINY, 8, 3, 3)
    enlarged = Bicubic(TINY).sample(lr)
    assert int(enlarged.max()) == TINY.levels - 1
    flat = torch.full_like(lr, 5)
    assert (Bicubic(TINY).sample(flat) == 5).all()


def test_the_nearest_neighbour_is_that_of_an_exhaustive_search(make_images):
    among = images(70)
    inputs = make_images(TINY, 9, 3, 3, seed=5)
    low, high = among.batch(slice(None))
    distances = (inputs[:, None].double() - low[None].double()).square().flatten(2).sum(dim=2)
    assert torch.equal(Nearest(among).sample(inputs), high[distances.argmin(dim=1)])


def test_the_nearest_neighbour_of_a_training_image_is_itself(monkeypatch):
    monkeypatch.setattr("prsr.sampling.interpolation.READ", 16)
    among = images(40)
    low, high = among.batch(slice(None))
    assert torch.equal(Nearest(among).sample(low), high)


def test_nearest_refuses_inputs_of_another_size(make_images):
    with pytest.raises(ValueError, match=r"27 values per image.*\[2, 3, 4, 3\]"):
        Nearest(images()).sample(make_images(TINY, 2, 4, 3))


@pytest.mark.parametrize("estimate", [Bicubic(TINY), Nearest(images()), method_for(build("l2"))])
def test_a_deterministic_method_gives_equal_samples(estimate, make_images):
    lr = make_images(TINY, 3, 3, 3)
    samples = estimate.sample(lr, 0.5, seed=3, num_samples=4)
    assert samples.shape == (3, 4, 3, 6, 6)
    assert samples.dtype == torch.uint8
    for s in range(4):
        assert torch.equal(samples[:, s], estimate.sample(lr, seed=9))


def with_zero_prior(model):
    """The full model with this conditioning network and a prior whose logits are zero."""
    full = PRSR(TINY).eval()
    full.conditioning.load_state_dict(model.conditioning.state_dict())
    last = full.prior.head[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return full


@pytest.mark.parametrize("temperature", [1.0, 0.3, 0.0])
def test_independent_samples_are_those_of_a_model_with_a_zero_prior(
    temperature, make_images, monkeypatch
):
    monkeypatch.setattr("prsr.sampling.trained_baselines.SLICE", 2)
    model, lr = build("independent"), make_images(TINY, 5, 3, 4)
    drawing = {"seed": 7, "num_samples": 2, "first_index": 11}
    expected = Sampler(with_zero_prior(model), engine="torch").sample(lr, temperature, **drawing)
    assert torch.equal(method_for(model).sample(lr, temperature, **drawing), expected)


def test_independent_samples_do_not_depend_on_the_batch(make_images):
    model, lr = build("independent"), make_images(TINY, 4, 3, 3)
    expected = method_for(model).sample(lr, torch.tensor([1.0, 0.5, 2.0, 0.0]), seed=1)
    assert torch.equal(method_for(model).sample(lr[2:3], 2.0, seed=1, first_index=2), expected[2:3])
    assert not torch.equal(
        method_for(model).sample(lr, seed=2), method_for(model).sample(lr, seed=3)
    )


def test_an_independent_draw_inverts_the_cdf_of_its_own_sub_pixel(make_images):
    model, lr = build("independent"), make_images(TINY, 2, 3, 3)
    drawn = method_for(model).sample(lr, seed=4).long()[:, None]
    with torch.no_grad():
        cdf = model.conditioning(lr).double().softmax(dim=1).cumsum(dim=1)
    u = noise(4, 2, 6, 6, 3).permute(0, 3, 1, 2)[:, None]
    assert (cdf.gather(1, drawn) > u - 1e-5).all()
    below = cdf.gather(1, (drawn - 1).clamp(min=0)).where(drawn > 0, 0)
    assert (below <= u + 1e-5).all()


def test_unconditional_samples_do_not_depend_on_the_input(make_images):
    model = build("unconditional")
    one, other = (make_images(TINY, 3, 3, 3, seed=seed) for seed in (0, 1))
    method = method_for(model)
    assert torch.equal(method.sample(one, seed=5), method.sample(other, seed=5))
    hr = make_images(TINY, 3, 6, 6)
    assert torch.equal(model(one, hr), model(other, hr))


def test_unconditional_model_with_conditional_gates_is_refused():
    config = dataclasses.replace(TINY, conditional_gates=True)
    with pytest.raises(ValueError, match="conditional_gates must be false for the method uncond"):
        Unconditional(config)


def test_an_unconditional_model_samples_its_prior_alone(make_images):
    model, lr = build("unconditional"), make_images(TINY, 3, 3, 3)
    full = PRSR(TINY).eval()
    full.prior.load_state_dict(model.prior.state_dict())
    torch.nn.init.zeros_(full.conditioning[-1].weight)
    torch.nn.init.zeros_(full.conditioning[-1].bias)
    assert torch.equal(method_for(model).sample(lr, seed=2), Sampler(full).sample(lr, seed=2))


def test_regression_rounds_and_clips_to_levels(make_images):
    model, lr = build("l2"), make_images(TINY, 4, 3, 3)
    torch.nn.init.zeros_(model.network[-1].weight)
    for value, level in (
        (-0.5, 0),
        (0.5, 7),
        (9.0, 7),
        (-9.0, 0),
        (2.4 / 7 - 0.5, 2),
        (2.6 / 7 - 0.5, 3),
    ):
        torch.nn.init.constant_(model.network[-1].bias, value)
        assert (method_for(model).sample(lr) == level).all()


def test_the_regression_loss_is_the_squared_error_on_a_scale_from_0_to_1(make_images):
    model, lr = build("l2"), make_images(TINY, 4, 3, 3)
    torch.nn.init.zeros_(model.network[-1].weight)
    torch.nn.init.constant_(model.network[-1].bias, 0.25 - 0.5)
    white, black = torch.full((4, 3, 6, 6), 7, dtype=torch.uint8), torch.zeros(4, 3, 6, 6).byte()
    for hr, expected in ((white, 0.75**2), (black, 0.25**2)):
        output = model(lr, hr)
        assert model.loss(output, hr).item() == pytest.approx(expected)
        errors = model.per_image_metrics(output, hr)["mean squared error"]
        assert torch.allclose(errors, torch.full((4,), expected))


@pytest.mark.parametrize("method", ["independent", "unconditional"])
def test_the_loss_in_nats_equals_the_reported_bits(method, make_images):
    model = build(method)
    lr, hr = make_images(TINY, 4, 3, 3), make_images(TINY, 4, 6, 6)
    output = model(lr, hr)
    bits = model.per_image_metrics(output, hr)["bits/dim"].mean().item()
    assert model.loss(output, hr).item() == pytest.approx(bits * math.log(2), rel=1e-5)
    expected = -output.log_softmax(dim=1).gather(1, hr.long()[:, None]).mean() / math.log(2)
    assert bits == pytest.approx(expected.item(), rel=1e-5)


def test_metrics_of_the_full_model_cover_the_sum_and_both_networks(make_images, make_model):
    model = make_model()
    lr, hr = make_images(TINY, 3, 3, 3), make_images(TINY, 3, 6, 6)
    output = model(lr, hr)
    found = model.per_image_metrics(output, hr)
    for name, logits in zip(found, output, strict=True):
        bits = -logits.log_softmax(dim=1).gather(1, hr.long()[:, None]) / math.log(2)
        assert torch.allclose(found[name], bits.flatten(1).mean(dim=1), rtol=1e-5)
    assert len({values.mean().item() for values in found.values()}) == 3


def test_baselines_have_as_many_parameters_as_the_models_networks():
    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    full = PRSR(TINY)
    assert count(Independent(TINY)) == count(full.conditioning)
    assert count(Unconditional(TINY)) == count(full.prior)
    last = (TINY.conditioning_channels + 1) * TINY.channels
    assert count(Regression(TINY)) == count(full.conditioning) - last * (TINY.levels - 1)


@pytest.mark.parametrize("method", TRAINED)
def test_training_lowers_the_error_and_resumes_bit_identically(method, tmp_path):
    settings = TrainSettings(
        TINY, batch_size=4, learning_rate=2e-3, halve_every=1000, method=method
    )
    held = blocks(6, seed=1)

    def run(folder, steps, resume=False):
        plan = RunPlan(tmp_path / folder, steps, 30, sheet_images=1)
        return train(settings, plan, blocks(), held, CPU, resume=resume)

    torch.manual_seed(0)
    before = mean_metrics(MODELS[method](TINY), held)
    model = run("whole", 60)
    after = mean_metrics(model, held)
    first = next(iter(after))
    assert after[first] < 0.8 * before[first]
    run("parts", 30)
    parts = run("parts", 60, resume=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    saved = open_model(tmp_path / "whole" / "model")
    assert type(saved) is MODELS[method]
    assert mean_metrics(saved, held) == after


def test_a_run_is_not_resumed_by_another_method(tmp_path):
    plan = RunPlan(tmp_path, 1, 1, sheet_images=1)
    data = images(6)
    train(TrainSettings(TINY, batch_size=4), plan, data, data, CPU)
    other = TrainSettings(TINY, batch_size=4, method="l2")
    with pytest.raises(ValueError, match="method = recursive, not l2"):
        train(other, plan, data, data, CPU, resume=True)


def test_settings_refuse_an_unknown_method():
    with pytest.raises(ValueError, match=r"method must be recursive, independent, .*'l1'"):
        TrainSettings(TINY, method="l1")


def test_a_model_of_one_method_is_not_loaded_as_another(tmp_path):
    build("l2").save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["method"] == "l2"
    with pytest.raises(ValueError, match="of the method l2, not recursive"):
        PRSR.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="of the method l2, not independent"):
        Independent.from_pretrained(tmp_path)


def test_a_saved_model_of_an_unknown_method_is_refused(tmp_path):
    build("l2").save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text()) | {"method": "gan"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="'gan'; there are: recursive, independent, l2"):
        open_model(tmp_path)


def test_models_saved_without_a_method_are_recursive():
    assert type(open_model("faces")) is PRSR


@pytest.mark.parametrize("method", ["independent", "l2"])
def test_an_engine_or_precision_for_a_model_without_a_prior_is_refused(method):
    with pytest.raises(ValueError, match=f"method {method} has no prior network"):
        method_for(build(method), engine="torch")
    with pytest.raises(ValueError, match="precision 'bf16'"):
        method_for(build(method), precision="bf16")


@pytest.mark.parametrize("method", ["independent", "l2", "unconditional"])
def test_pairs_that_do_not_match_are_refused(method, make_images):
    model = build(method)
    with pytest.raises(ValueError, match=r"hr must be \[2, 3, 6, 6\]"):
        model(make_images(TINY, 2, 3, 3), make_images(TINY, 2, 6, 7))
    with pytest.raises(TypeError, match="lr must be a uint8 tensor"):
        model(make_images(TINY, 2, 3, 3).float(), make_images(TINY, 2, 6, 6))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch": torch.zeros(1, 3, 3, 3)}, TypeError, "batch must be a uint8 tensor"),
        ({"batch": torch.full((1, 3, 3, 3), 8, dtype=torch.uint8)}, ValueError, "below 8"),
        ({"temperature": -1.0}, ValueError, "temperature must be finite and not negative, got -1"),
        ({"temperature": math.nan}, ValueError, "temperature must be finite and not negative"),
        ({"seed": -1}, ValueError, "seed must be from 0 to .*, got -1"),
        ({"seed": 0.5}, TypeError, "seed must be an integer, got 0.5"),
        ({"num_samples": 0}, ValueError, "num_samples must be from 1 to .*, got 0"),
        ({"first_index": -1}, ValueError, "first_index must be from 0 to .*, got -1"),
        ({"first_index": 2**63 - 1}, ValueError, "first_index must be from 0 to"),
    ],
)
@pytest.mark.parametrize("name", ["independent", "l2", "bicubic", "recursive"])
def test_every_method_refuses_invalid_arguments(name, arguments, error, message):
    batch = torch.zeros(1, 3, 3, 3, dtype=torch.uint8)
    method = Bicubic(TINY) if name == "bicubic" else method_for(build(name))
    with pytest.raises(error, match=message):
        method.sample(**({"batch": batch} | arguments))
