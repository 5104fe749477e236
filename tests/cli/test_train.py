"""``prsr train``: from a folder, from a model, and resumed."""

import shutil


def test_a_model_trained_on_a_folder_can_be_sampled(command, photos, tmp_path):
    out = tmp_path / "run"
    code, _, errors = command(
        "train", "--data", photos, "--preset", "tiny", "--steps", 2, "--out", out, "--device", "cpu"
    )
    assert (code, errors) == (0, "")
    code, _, _ = command(
        "sample", photos / "a.png", "-o", tmp_path / "s.png", "--model", out / "model"
    )
    assert code == 0


def test_training_started_from_a_model_resumes_without_that_model(command, model, photos, tmp_path):
    out = tmp_path / "run"
    arguments = ("train", "--data", photos, "--out", out, "--batch-size", 2, "--from", model)
    code, printed, errors = command(*arguments, "--steps", 1)
    assert code == 0, errors
    assert f"from {model}" in printed
    shutil.rmtree(model)
    code, printed, errors = command(*arguments, "--steps", 2, "--resume")
    assert code == 0, errors
    assert "resumed, " in printed
    assert model not in printed


def test_a_schedule_may_be_longer_than_the_run(command, photos, tmp_path):
    arguments = ("train", "--data", photos, "--preset", "tiny", "--batch-size", 2)
    arguments = (*arguments, "--device", "cpu", "--schedule", "linear")
    whole, parts = (("--out", tmp_path / name) for name in ("whole", "parts"))
    assert command(*arguments, *whole, "--steps", 4)[0] == 0
    for more in ((), ("--resume",)):
        steps = ("--steps", 4 if more else 2, "--schedule-steps", 4)
        assert command(*arguments, *parts, *steps, *more)[0] == 0
    one, other = (tmp_path / name / "model/model.safetensors" for name in ("whole", "parts"))
    assert one.read_bytes() == other.read_bytes()
    # Without --schedule-steps, the schedule ends with the run, and a longer run cannot resume it.
    assert command(*arguments, "--out", tmp_path / "short", "--steps", 2)[0] == 0
    code, _, errors = command(*arguments, "--out", tmp_path / "short", "--steps", 4, "--resume")
    assert code == 2
    assert "trained with schedule_steps = 2, not 4" in errors
