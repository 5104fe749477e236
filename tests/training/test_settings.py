"""Training settings: schedules, optimisers, the average of the weights, compiled steps."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from prsr import PRSR, PRSRConfig
from prsr.data.dataset import EndlessBatches, SuperResolutionImages
from prsr.evaluation.model_metrics import mean_metrics
from prsr.training.batches import ResidentBatches, batches_of, fits_on_gpu
from prsr.training.loop import RunPlan, train
from prsr.training.settings import TrainSettings
from prsr.training.trainer import Trainer, warn_uncompiled

TINY = PRSRConfig.preset("tiny")
CPU = torch.device("cpu")
SETTINGS = TrainSettings(TINY, batch_size=4, learning_rate=2e-3)
MODERN = dataclasses.replace(
    SETTINGS, optimizer="adamw", ema=0.8, warmup=3, schedule="linear", schedule_steps=12
)


def images(count=24, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 8, (count, 3, 6, 6), dtype=np.uint8)
    return SuperResolutionImages(pixels, TINY)


def run(folder, steps, settings=MODERN, **options):
    plan = RunPlan(folder, steps, report_every=4, sheet_images=2)
    return train(settings, plan, images(), images(6, seed=1), CPU, **options)


@pytest.mark.parametrize("diverges", [False, True])
def test_the_event_file_is_closed_after_a_run(diverges, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(SummaryWriter, "close", lambda self: closed.append(self))
    if diverges:
        monkeypatch.setattr(Trainer, "train_step", lambda *_: {"loss": torch.tensor(math.nan)})
        with pytest.raises(FloatingPointError):
            run(tmp_path, 2)
    else:
        run(tmp_path, 2)
    assert len(closed) == 1


def test_schedules_give_the_expected_rates():
    halving = dataclasses.replace(SETTINGS, learning_rate=1.0, halve_every=2)
    assert [halving.rate(step) for step in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    linear = dataclasses.replace(halving, schedule="linear", schedule_steps=8)
    assert [linear.rate(step) for step in range(9)] == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    cosine = dataclasses.replace(halving, schedule="cosine", schedule_steps=4)
    expected = [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]
    assert [cosine.rate(step) for step in range(5)] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TrainSettings)])
@pytest.mark.parametrize("value", ["tiny", "no", "0.9", b"1", [1], {}, object(), 1j, torch.ones(2)])
def test_arguments_of_wrong_types_are_refused_by_name(name, value):
    with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
        dataclasses.replace(SETTINGS, **{name: value})


@pytest.mark.parametrize("name", ["learning_rate", "clip", "ema", "batch_size", "seed"])
def test_truth_values_are_not_numbers(name):
    with pytest.raises(TypeError, match=f"^{name} must be"):
        dataclasses.replace(SETTINGS, **{name: True})


@pytest.mark.parametrize("name", ["config", "augment", "learning_rate", "clip", "method"])
def test_none_is_refused_where_a_value_is_needed(name):
    with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
        dataclasses.replace(SETTINGS, **{name: None})


def test_warm_up_rises_to_the_rate_of_the_schedule():
    settings = dataclasses.replace(SETTINGS, learning_rate=1.0, warmup=4, halve_every=3)
    assert [settings.rate(step) for step in range(6)] == [0.25, 0.5, 0.75, 0.5, 0.5, 0.5]


def test_steps_use_the_rate_of_the_schedule():
    trainer = Trainer(MODERN, "data", CPU)
    batch = images().batch(slice(4))
    rates = [float(trainer.train_step(*batch)["learning rate"]) for _ in range(12)]
    assert rates == [MODERN.rate(step) for step in range(12)]
    assert trainer.optimiser.param_groups[0]["lr"] == MODERN.rate(11)


def test_adamw_is_torchs_with_the_documented_hyperparameters():
    settings = dataclasses.replace(SETTINGS, optimizer="adamw", clip=1e9)
    trainer = Trainer(settings, "data", CPU)
    assert isinstance(trainer.optimiser, torch.optim.AdamW)
    assert trainer.optimiser.defaults["fused"]
    parameter = trainer.model.prior.head[2].weight
    before, batch = parameter.detach().clone(), images().batch(slice(4))
    trainer.train_step(*batch)
    # The first step of Adam is the sign of the gradient, except for ε; weight decay comes first.
    gradient = parameter.grad
    expected = before * (1 - 2e-3 * 0.01) - 2e-3 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-6)
    state = trainer.optimiser.state[parameter]
    torch.testing.assert_close(state["exp_avg"], 0.1 * gradient)
    torch.testing.assert_close(state["exp_avg_sq"], 0.01 * gradient**2)


def test_the_average_follows_the_decay_and_is_faster_at_first():
    trainer = Trainer(dataclasses.replace(SETTINGS, ema=0.3), "data", CPU)
    batch, averaged = images().batch(slice(4)), {}
    for t in range(6):
        trainer.train_step(*batch)
        decay = 0.0 if t == 0 else min(0.3, (1 + t) / (10 + t))
        for name, value in trainer.model.state_dict().items():
            if value.is_floating_point():
                old = averaged.get(name, value)
                averaged[name] = decay * old + (1 - decay) * value
            else:
                averaged[name] = value.clone()
            found = trainer.result.state_dict()[name]
            torch.testing.assert_close(found, averaged[name], rtol=1e-5, atol=1e-6)
    assert decay == 0.3
    for name in ("conditioning.1.1.running_mean", "prior.head.2.weight"):
        assert not torch.equal(averaged[name], trainer.model.state_dict()[name])


def test_integer_and_bool_buffers_of_the_average_are_those_of_the_model():
    config = dataclasses.replace(TINY, head_channels=100)
    trainer = Trainer(dataclasses.replace(SETTINGS, config=config, ema=0.9), "data", CPU)
    for _ in range(3):
        trainer.train_step(*images().batch(slice(4)))
    pairs = zip(trainer.model.named_buffers(), trainer.result.buffers(), strict=True)
    buffers = [(name, a, b) for (name, a), b in pairs if not a.is_floating_point()]
    assert {a.dtype for _, a, _ in buffers} == {torch.bool, torch.int64}
    for name, a, b in buffers:
        assert torch.equal(a, b), name


def test_without_an_average_the_result_is_the_model():
    trainer = Trainer(SETTINGS, "data", CPU)
    assert trainer.result is trainer.model


@pytest.mark.parametrize("optimizer", ["rmsprop", "adamw"])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(
    tmp_path, optimizer, assert_equal_tensors
):
    settings = dataclasses.replace(MODERN, optimizer=optimizer)
    run(tmp_path / "whole", 12, settings)
    for steps in (4, 8, 12):
        run(tmp_path / "parts", steps, settings, resume=steps > 4)
    for file in ("checkpoint.safetensors", "model/model.safetensors"):
        whole, parts = (load_file(tmp_path / name / file) for name in ("whole", "parts"))
        assert_equal_tensors(whole, parts)


def test_the_model_is_the_average_and_the_checkpoint_has_the_raw_weights_too(
    tmp_path, assert_equal_tensors
):
    result = run(tmp_path, 6)
    saved = PRSR.from_pretrained(tmp_path / "model").state_dict()
    checkpoint = load_file(tmp_path / "checkpoint.safetensors")
    assert_equal_tensors(dict(result.state_dict()), dict(saved))
    for name, value in saved.items():
        assert torch.equal(checkpoint[f"average.{name}"], value)
    assert not torch.equal(checkpoint["model.prior.head.2.bias"], saved["prior.head.2.bias"])


def test_reports_contain_the_average_and_the_raw_weights(tmp_path, read_scalars):
    result = run(tmp_path, 6)
    scalars = read_scalars(tmp_path)
    bits = {
        suffix: [value for _, value in scalars[f"validation/bits/dim{suffix}"]]
        for suffix in ("", ", raw weights")
    }
    assert [len(values) for values in bits.values()] == [2, 2]
    expected = mean_metrics(result, images(6, seed=1))["bits/dim"]
    assert bits[""][-1] == pytest.approx(expected, rel=1e-5)
    assert bits[""][-1] != pytest.approx(bits[", raw weights"][-1], rel=1e-5)


def test_a_run_without_an_average_reports_only_its_weights(tmp_path, read_scalars):
    run(tmp_path, 2, SETTINGS)
    assert not [tag for tag in read_scalars(tmp_path) if "raw" in tag]
    assert not [
        name for name in load_file(tmp_path / "checkpoint.safetensors") if "average" in name
    ]


def test_a_run_longer_than_its_schedule_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"steps must be at most 12, .* linear ends, got 13"):
        run(tmp_path / "run", 13)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["optimizer", "ema", "warmup", "schedule_steps"])
def test_a_run_with_other_settings_is_not_resumed(tmp_path, name):
    run(tmp_path, 2)
    other = {"optimizer": "rmsprop", "ema": 0.9, "warmup": 0, "schedule_steps": 20}[name]
    with pytest.raises(ValueError, match=f"was trained with {name}"):
        run(tmp_path, 4, dataclasses.replace(MODERN, **{name: other}), resume=True)


def test_a_run_older_than_these_settings_is_resumed(tmp_path, assert_equal_tensors):
    run(tmp_path / "whole", 8, SETTINGS)
    run(tmp_path / "old", 4, SETTINGS)
    import json

    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "old" / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["prsr"])
    for name in ("optimizer", "ema", "warmup", "schedule", "schedule_steps"):
        del about["settings"][name]
    del about["settings"]["config"]["conditional_gates"]
    save_file(load_file(path), path, {"prsr": json.dumps(about)})
    run(tmp_path / "old", 8, SETTINGS, resume=True)
    assert_equal_tensors(load_file(path), load_file(tmp_path / "whole" / "checkpoint.safetensors"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer must be rmsprop or adamw, got 'sgd'"),
        ({"schedule": "step"}, "schedule must be halve, linear or cosine, got 'step'"),
        ({"ema": 0.0}, "ema must be above 0 and below 1, got 0.0"),
        ({"ema": 1.0}, "ema must be above 0 and below 1, got 1.0"),
        ({"ema": math.nan}, "ema must be above 0 and below 1, got nan"),
        ({"warmup": -1}, "warmup must be from 0"),
        ({"schedule_steps": 5}, "schedule_steps must be None with the schedule halve, got 5"),
        ({"schedule": "linear", "schedule_steps": 0}, "schedule_steps must be from 1"),
    ],
)
def test_invalid_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **change)


def test_a_schedule_to_zero_requires_its_number_of_steps():
    with pytest.raises(TypeError, match="schedule_steps must be an integer, got None"):
        dataclasses.replace(SETTINGS, schedule="cosine")


def test_the_command_passes_the_settings_on(command, tmp_path):
    np.save(tmp_path / "set.npy", images().pixels)
    arguments = ["train", "--data", tmp_path / "set.npy", "--preset", "tiny", "--batch-size", 4]
    arguments += ["--steps", 3, "--out", tmp_path / "run", "--device", "cpu", "--ema", 0.5]
    arguments += ["--optimizer", "adamw", "--warmup", 2, "--schedule", "cosine"]
    code, _, errors = command(*arguments)
    assert (code, errors) == (0, "")
    trainer = Trainer(
        dataclasses.replace(
            SETTINGS,
            learning_rate=4e-4,
            optimizer="adamw",
            ema=0.5,
            warmup=2,
            schedule="cosine",
            schedule_steps=3,
        ),
        images().split(1, 0)[0].fingerprint(),
        CPU,
    )
    trainer.restore(tmp_path / "run" / "checkpoint.safetensors")
    assert trainer.step == 3


@pytest.mark.parametrize(
    "arguments", [("--ema", 2), ("--optimizer", "sgd"), ("--schedule", "x"), ("--warmup", -3)]
)
def test_the_command_refuses_invalid_settings_in_one_line(command, tmp_path, arguments):
    np.save(tmp_path / "set.npy", images().pixels)
    code, _, errors = command(
        *("train", "--data", tmp_path / "set.npy", "--preset", "tiny", "--steps", 3),
        *("--out", tmp_path / "run", "--device", "cpu", *arguments),
    )
    assert code == 2
    assert errors.count("\n") == 1
    assert arguments[0].strip("-") in errors
    assert not (tmp_path / "run").exists()


def test_scalars_written_later_are_the_same(tmp_path, monkeypatch, read_scalars):
    run(tmp_path / "at once", 7, SETTINGS)
    monkeypatch.setattr(
        "prsr.training.loop.Reporter.add_scalars",
        lambda self, values, *_: self.pending.append(values),
    )
    run(tmp_path / "later", 7, SETTINGS)
    found = [read_scalars(tmp_path / name)["training/loss"] for name in ("at once", "later")]
    assert found[0] == found[1]
    assert [step for step, _ in found[0]] == list(range(1, 8))


def test_images_resident_on_the_device_give_the_batches_of_a_loader(monkeypatch):
    monkeypatch.setattr("prsr.training.batches.READ_IMAGES", 10)
    order = lambda: itertools.islice(EndlessBatches(24, 5, seed=3), 12)  # noqa: E731
    kept = list(ResidentBatches(images(), order(), CPU))
    loaded = list(batches_of(images(), list(order()), CPU))
    assert len(kept) == len(loaded) == 12
    for one, other in zip(kept, loaded, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_images_are_resident_if_they_take_at_most_a_quarter_of_the_memory(monkeypatch):
    size = 24 * 3 * (6 * 6 + 3 * 3)
    assert fits_on_gpu(images(), 4 * size)
    assert not fits_on_gpu(images(), 4 * size - 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * size, 0))
    monkeypatch.setattr(
        "prsr.training.batches.ResidentBatches", lambda *arguments: ("resident", arguments[2])
    )
    cuda = torch.device("cuda")
    assert batches_of(images(), [[0]], cuda) == ("resident", cuda)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (size, 0))
    assert not isinstance(batches_of(images(), [[0]], cuda), tuple)


def test_compiled_steps_equal_plain_ones():
    config = dataclasses.replace(TINY, prior_layers=1, conditioning_blocks=0)
    settings = dataclasses.replace(SETTINGS, config=config, optimizer="adamw", ema=0.9)
    trainers = [Trainer(settings, "data", CPU, compiled=compiled) for compiled in (False, True)]
    batch = images().batch(slice(4))
    for _ in range(2):
        one, other = (trainer.train_step(*batch) for trainer in trainers)
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6)
    # No fallback: its warning would be an error here.
    assert trainers[1].loss is not trainers[1].plain_loss


def test_training_continues_if_compiling_fails(monkeypatch, assert_equal_tensors):
    def broken(graph, inputs):
        raise OSError("no compiler here")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **k: compile_(f, backend=broken, **k))
    trainer, plain = (Trainer(SETTINGS, "data", CPU, compiled=c) for c in (True, False))
    batch = images().batch(slice(4))
    with pytest.warns(UserWarning, match="torch.compile failed.*no compiler here"):
        first = trainer.train_step(*batch)
    assert torch.equal(first["loss"], plain.train_step(*batch)["loss"])
    assert_equal_tensors(trainer.model.state_dict(), plain.model.state_dict())
    trainer.train_step(*batch)  # no second warning, which would be an error here


def test_training_continues_if_torch_compile_is_unsupported(monkeypatch):
    def unsupported(*args, **options):
        raise RuntimeError("Python 3.99 is not supported")

    monkeypatch.setattr(torch, "compile", unsupported)
    with pytest.warns(UserWarning, match="failed.*Python 3.99"):
        trainer = Trainer(SETTINGS, "data", CPU, compiled=True)
    trainer.train_step(*images().batch(slice(4)))


def test_the_warning_for_an_error_without_a_message_names_its_type():
    with pytest.warns(UserWarning, match="RuntimeError"):
        warn_uncompiled(RuntimeError())


def test_convolution_weights_are_channels_last():
    trainer = Trainer(dataclasses.replace(SETTINGS, ema=0.5), "data", CPU)
    for model in (trainer.model, trainer.result):
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                assert layer.weight.is_contiguous(memory_format=torch.channels_last)
