"""Training: the loss falls, a killed run resumes exactly, and no file is left incomplete."""

import dataclasses
import json
import math
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from prsr import PRSR, PRSRConfig, bits_per_dim, prsr_loss
from prsr.data.dataset import SuperResolutionImages
from prsr.evaluation.model_metrics import mean_metrics
from prsr.training.loop import RunPlan, train
from prsr.training.settings import TrainSettings
from prsr.training.trainer import Trainer, use_channels_last

TINY = PRSRConfig.preset("tiny")
CPU = torch.device("cpu")
SETTINGS = TrainSettings(TINY, batch_size=4, learning_rate=2e-3, halve_every=5)
SLOW_DECAY = dataclasses.replace(SETTINGS, halve_every=1000)


def images(count=24, seed=0):
    """Flat images with a bright block: easy to learn."""
    rng = np.random.default_rng(seed)
    pixels = np.empty((count, 3, 6, 6), np.uint8)
    pixels[:] = rng.integers(0, 4, (count, 3, 1, 1))
    pixels[:, :, 2:4, 2:4] += 4
    return SuperResolutionImages(pixels, TINY)


DATA = images().fingerprint()


def run(folder, steps, *, resume=False, report_every=4, settings=SETTINGS):
    plan = RunPlan(folder, steps, report_every, sheet_images=2)
    return train(settings, plan, images(), images(6, seed=1), CPU, resume=resume)


def checkpoint(folder):
    return load_file(folder / "checkpoint.safetensors")


def test_training_lowers_the_loss_on_held_out_images(tmp_path):
    held = images(6, seed=1)
    before = mean_metrics(PRSR(TINY), held)
    model = run(tmp_path, 60, report_every=60, settings=SLOW_DECAY)
    after = mean_metrics(model, held)
    assert after["bits/dim"] < 0.7 * before["bits/dim"]
    assert after["bits/dim"] < after["bits/dim, conditioning alone"]


def test_a_run_writes_checkpoint_model_sheets_and_scalars(
    tmp_path, assert_equal_tensors, read_scalars
):
    model = run(tmp_path, 5)
    saved = PRSR.from_pretrained(tmp_path / "model")
    assert_equal_tensors(dict(model.state_dict()), dict(saved.state_dict()))
    sheets = sorted(path.name for path in (tmp_path / "sheets").iterdir())
    assert sheets == ["step-0000004.png", "step-0000005.png"]
    scalars = read_scalars(tmp_path)
    assert [step for step, _ in scalars["training/loss"]] == [1, 2, 3, 4, 5]
    assert [step for step, _ in scalars["validation/bits/dim"]] == [4, 5]
    assert {path.name for path in tmp_path.iterdir() if "writing" in path.name} == set()


def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(tmp_path, assert_equal_tensors):
    run(tmp_path / "whole", 12)
    run(tmp_path / "parts", 4)
    run(tmp_path / "parts", 8, resume=True)
    run(tmp_path / "parts", 12, resume=True)
    assert_equal_tensors(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))


# `prsr` that kills itself before the fifth step.
KILLED = """
import os, signal
from prsr.cli.main import main
from prsr.training.trainer import Trainer
train_step = Trainer.train_step
def step_or_die(self, lr, hr):
    if self.step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_step(self, lr, hr)
Trainer.train_step = step_or_die
main()
"""


@pytest.mark.parametrize("every", [3, 9999])  # killed after a checkpoint, and before the first
def test_a_killed_run_resumes_bit_identically(tmp_path, every, assert_equal_tensors):
    folder, data = tmp_path / "killed", tmp_path / "set.npy"
    np.save(data, images().pixels)
    arguments = ["train", "--data", data, "--validation", data, "--preset", "tiny", "--steps", "7"]
    arguments += ["--batch-size", "4", "--device", "cpu", "--report-every", str(every)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments, "--out", folder], **quiet)
    assert killed.returncode == -signal.SIGKILL
    assert (folder / "sheets").is_dir()
    assert (folder / "checkpoint.safetensors").exists() == (every == 3)
    command = [sys.executable, "-m", "prsr", *arguments]
    subprocess.run([*command, "--out", folder, "--resume"], check=True, **quiet)
    subprocess.run([*command, "--out", tmp_path / "whole"], check=True, **quiet)
    assert_equal_tensors(checkpoint(folder), checkpoint(tmp_path / "whole"))


def test_a_run_may_start_from_the_weights_of_a_model(tmp_path, assert_equal_tensors):
    start = PRSR(SETTINGS.config)
    trainer = Trainer(SETTINGS, "data", CPU, start)
    assert_equal_tensors(trainer.model.state_dict(), start.state_dict())
    trainer.train_step(*images(4).batch(slice(4)))
    assert not torch.equal(trainer.model.prior.head[2].weight, start.prior.head[2].weight)
    other = PRSR(dataclasses.replace(SETTINGS.config, prior_layers=1))
    plan = RunPlan(tmp_path / "run", 1)
    with pytest.raises(ValueError, match="start must be a model of"):
        train(SETTINGS, plan, images(), images(), CPU, start=other)
    assert not (tmp_path / "run").exists()


def test_steps_are_rmsprop_with_momentum_of_the_clipped_gradient():
    settings = dataclasses.replace(SETTINGS, clip=0.01)
    trainer, twin = Trainer(settings, DATA, CPU), PRSR(TINY)
    use_channels_last(twin)  # so that gradients are rounded in the same way
    lr, hr = images().batch(slice(0, 4))
    squares, moving = ({name: 0.0 for name, _ in twin.named_parameters()} for _ in range(2))
    for tolerance in (2e-4, 4e-4):  # rounding matters where a gradient is as small as ε
        twin.load_state_dict(trainer.model.state_dict())
        twin.zero_grad()
        prsr_loss(twin(lr, hr), hr).backward()
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in twin.parameters()))
        scalars = trainer.train_step(lr, hr)
        assert scalars["gradient norm"] == pytest.approx(norm, rel=1e-4)
        assert norm > settings.clip
        new = dict(trainer.model.named_parameters())
        for name, old in twin.named_parameters():
            gradient = old.grad * (settings.clip / norm)
            squares[name] = 0.95 * squares[name] + 0.05 * gradient**2
            moving[name] = 0.9 * moving[name] + gradient / (squares[name].sqrt() + 1e-8)
            expected = old - settings.learning_rate * moving[name]
            assert torch.allclose(new[name], expected, atol=tolerance, rtol=0), name


def test_the_learning_rate_is_halved_at_the_right_steps():
    trainer = Trainer(SETTINGS, DATA, CPU)
    lr, hr = images().batch(slice(0, 4))
    rates = [trainer.train_step(lr, hr)["learning rate"] for _ in range(11)]
    assert rates == [2e-3] * 5 + [1e-3] * 5 + [5e-4]


def test_mixed_precision_trains_too():
    trainer = Trainer(dataclasses.replace(SETTINGS, precision="bf16"), DATA, CPU)
    lr, hr = images().batch(slice(0, 24))
    losses = [trainer.train_step(lr, hr)["loss"] for _ in range(15)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


def test_a_batch_that_cannot_be_split_evenly_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("prsr.utils.distributed.count", lambda: 3)
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes, got 4"):
        run(tmp_path, 1)


def test_an_interruption_within_a_report_loses_nothing(tmp_path, monkeypatch):
    # Whichever output was last written, resuming writes all the missing ones.
    for moment in (
        "prsr.training.loop.sample_sheet",
        "prsr.training.loop.save_image",
        "prsr.PRSR.save_pretrained",
        "prsr.training.trainer.Trainer.save",
    ):
        folder = tmp_path / moment

        def killed(*args, **kwargs):
            raise KeyboardInterrupt

        run(folder, 4)
        with monkeypatch.context() as patch:
            patch.setattr(moment, killed)
            with pytest.raises(KeyboardInterrupt):
                run(folder, 8, resume=True)
        run(folder, 8, resume=True)
        saved = PRSR.from_pretrained(folder / "model").state_dict()
        for name, value in saved.items():
            assert torch.equal(value, checkpoint(folder)[f"model.{name}"]), (moment, name)
        assert (folder / "sheets" / "step-0000008.png").is_file()


def test_a_resumed_run_removes_incomplete_files(tmp_path):
    run(tmp_path, 4)
    expected = {path.relative_to(tmp_path) for path in tmp_path.rglob("*[!0-9]")}
    for half in (".writing-a.safetensors", "sheets/.writing-b.png", "model/.writing-c/config.json"):
        (tmp_path / half).parent.mkdir(exist_ok=True)
        (tmp_path / half).write_text("{")
    run(tmp_path, 4, resume=True)
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*[!0-9]")} == expected


def test_scalars_after_the_checkpoint_are_replaced_on_resuming(tmp_path, read_scalars):
    from torch.utils.tensorboard import SummaryWriter

    run(tmp_path, 4)
    with SummaryWriter(str(tmp_path)) as killed:  # two steps after the checkpoint
        for step in (5, 6):
            killed.add_scalar("training/loss", -1.0, step)
    run(tmp_path, 8, resume=True)
    scalars = read_scalars(tmp_path)
    assert [step for step, _ in scalars["training/loss"]] == list(range(1, 9))
    assert all(value > 0 for _, value in scalars["training/loss"])
    assert [step for step, _ in scalars["validation/bits/dim"]] == [4, 8]


def test_evaluation_uses_and_keeps_the_running_statistics(assert_equal_tensors):
    model, data = PRSR(TINY), images(6)
    for part in range(3):
        model.conditioning(data.batch([part, part + 1])[0])  # in training mode
    state = {name: value.clone() for name, value in model.state_dict().items()}
    results = mean_metrics(model, data)
    assert model.training
    assert_equal_tensors(dict(model.state_dict()), state)
    lr, hr = data.batch(slice(None))
    assert results["bits/dim"] == pytest.approx(float(bits_per_dim(model, lr, hr).mean()), rel=1e-5)


def test_an_existing_run_is_not_overwritten_and_a_missing_one_not_resumed(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        run(tmp_path, 2, resume=True)
    run(tmp_path, 2)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="holds a run already"):
        run(tmp_path, 4)
    with pytest.raises(ValueError, match=r"steps must be at least 2, .* got 1"):
        run(tmp_path, 1, resume=True)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_other_settings_are_not_resumed(tmp_path):
    run(tmp_path, 2)
    for name, value in (("learning_rate", 1e-5), ("batch_size", 3), ("seed", 9)):
        other = dataclasses.replace(SETTINGS, **{name: value})
        with pytest.raises(ValueError, match=f"was trained with {name}"):
            run(tmp_path, 4, resume=True, settings=other)


def test_other_data_is_not_resumed(tmp_path):
    run(tmp_path, 2)
    other = images(24, seed=5)
    with pytest.raises(ValueError, match="was trained with data = 24 images, checksum"):
        train(SETTINGS, RunPlan(tmp_path, 4), other, other, CPU, resume=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, about: tensors.pop("model.prior.head.0.weight"),
        lambda tensors, about: tensors.pop("optimiser.prior.head.0.weight.square_avg"),
        lambda tensors, about: tensors.update({"optimiser.prior.head.0.bias.step": torch.ones(3)}),
        lambda tensors, about: tensors.update({"intruder": torch.ones(3)}),
        lambda tensors, about: tensors.update(
            {name: value.int() for name, value in tensors.items() if name.endswith("square_avg")}
        ),
        lambda tensors, about: about.update(step=-5),
        lambda tensors, about: about.update(step="2"),
        lambda tensors, about: about.update(settings=[1]),
        lambda tensors, about: about.pop("data"),
    ],
)
def test_an_unsuitable_checkpoint_is_refused(tmp_path, change):
    run(tmp_path, 2)
    path = tmp_path / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["prsr"])
    tensors = checkpoint(tmp_path)
    change(tensors, about)
    save_file(tensors, path, {"prsr": json.dumps(about)})
    with pytest.raises(ValueError, match="not a readable training checkpoint"):
        run(tmp_path, 4, resume=True)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    run(tmp_path, 2)
    path = tmp_path / "checkpoint.safetensors"
    intact = path.read_bytes()
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    for damaged in (intact[:1000], intact[:-1], b"", weights):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a readable training checkpoint"):
            run(tmp_path, 4, resume=True)


def test_a_nan_loss_ends_the_run_before_a_checkpoint_is_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "prsr.models.prsr.prsr_loss", lambda output, hr: output.logits.sum() * math.nan
    )
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1"):
        run(tmp_path, 4, report_every=1)
    assert not (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("seed", -1),
        ("halve_every", 0),
        ("learning_rate", -1.0),
        ("learning_rate", math.nan),
        ("clip", 0.0),
        ("precision", "fp16"),
    ],
)
def test_invalid_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(SETTINGS, **{name: value})


@pytest.mark.parametrize("name", ["steps", "report_every", "sheet_images"])
def test_invalid_plans_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=name):
        RunPlan(**{"folder": tmp_path, "steps": 1, name: 0})
