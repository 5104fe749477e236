"""Diverging training: the advice works, and a finite checkpoint is never replaced."""

import numpy as np
import pytest
import torch

from prsr import PRSR
from prsr.training.trainer import Trainer


@pytest.fixture
def array(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 8, (6, 3, 6, 6), dtype=np.uint8)
    np.save(tmp_path / "set.npy", pixels)
    return tmp_path / "set.npy"


def written(folder):
    """Every file of a run except the curves."""
    files = [path for path in folder.rglob("*") if path.is_file() and "events" not in path.name]
    return {path: path.read_bytes() for path in files}


def finite(folder):
    return all(bool(v.isfinite().all()) for v in PRSR.from_pretrained(folder).state_dict().values())


@pytest.mark.parametrize("report_every", [1, 100])
def test_a_diverged_run_leaves_no_checkpoint_and_can_be_started_again(
    command, array, tmp_path, report_every
):
    run = tmp_path / "run"
    call = ("train", "--data", array, "--preset", "tiny", "--out", run, "--batch-size", 2)
    call += ("--steps", 20, "--report-every", report_every)
    code, _, errors = command(*call, "--learning-rate", 1e30)
    assert code == 2
    assert "start again with a lower learning rate or clip" in errors
    assert not (run / "checkpoint.safetensors").exists()
    assert not (run / "model").exists()
    code, _, errors = command(*call)
    assert (code, errors) == (0, "")
    assert finite(run / "model")


@pytest.mark.parametrize("place", ["weights", "optimiser"])
def test_a_finite_checkpoint_is_kept_and_another_run_can_start_from_it(
    command, array, tmp_path, monkeypatch, place
):
    run, step = tmp_path / "run", Trainer.train_step

    def poisoned(trainer, *pair):
        scalars = step(trainer, *pair)
        if trainer.step == 4:
            parameter = next(trainer.model.prior.parameters())
            states = trainer.optimiser.state[parameter].values()
            (bad,) = [parameter] if place == "weights" else [s for s in states if s.dim()][:1]
            with torch.no_grad():
                bad.fill_(float("nan"))
        return scalars

    call = ("train", "--data", array, "--batch-size", 2, "--report-every", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", poisoned)
        tiny = ("--preset", "tiny", "--out", run)
        assert command(*call, *tiny, "--steps", 2)[0] == 0
        before = written(run)
        code, _, errors = command(*call, *tiny, "--steps", 6, "--resume")
    assert code == 2
    assert "is not finite at step 4: " in errors
    advice = f"start another run with --from {run / 'model'}"
    assert advice in errors
    assert written(run) == before
    arguments = (*call, *advice.split(" with ")[1].split(), "--out", tmp_path / "more")
    assert command(*arguments, "--steps", 6, "--learning-rate", 1e-4)[0] == 0
    assert finite(tmp_path / "more" / "model")
