"""Processes under torchrun give the weights and samples of one process, even after one dies."""

import os
import socket
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from prsr import PRSR, PRSRConfig
from prsr.cli.main import main
from prsr.utils import distributed

TINY = PRSRConfig.preset("tiny")


STEPS = 7


# `prsr` in double precision: the gradient of a bias before batch normalisation is only rounding
# error, which RMSProp divides by its own size. With DYING, the second process kills itself once, at
# step 5 or after its third file, the first of two of an image. LOG lists the files written.
PROGRAM = """
import os, signal, torch
import prsr.training.trainer, prsr.cli.sample_files
from prsr.cli.main import main
torch.set_default_dtype(torch.float64)
dying_here = (os.environ.get("DYING"), os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"])
dying_here = dying_here == ("1", "1", "0")
prsr.cli.sample_files.CHUNK, step = 1, prsr.training.trainer.Trainer.train_step
save, written = prsr.cli.sample_files.save_image, []
def train_step(self, lr, hr):
    if dying_here and self.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, lr, hr)
def save_image(image, path, *about):
    save(image, path, *about)
    with open(os.environ["LOG"], "a") as log:
        log.write(f"{path.name}\\n")
    written.append(path)
    if dying_here and len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
prsr.training.trainer.Trainer.train_step, prsr.cli.sample_files.save_image = train_step, save_image
main()
"""


def torchrun(tmp_path, *arguments, dying=False):
    """Run `prsr` in two processes; returns stdout."""
    ended = launch(tmp_path, *arguments, dying=dying)
    assert ended.returncode == 0, ended.stderr
    assert "FutureWarning" not in ended.stderr
    return ended.stdout


def launch(tmp_path, *arguments, dying=False, restarts=0):
    """Run `prsr` in two processes; returns the completed torchrun."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LOG": str(tmp_path / "log.txt")}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    launch += ["--max-restarts", restarts or int(dying)]
    command = map(str, [*launch, script, *arguments])
    environment["DYING"] = str(int(dying))
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def alone(monkeypatch, *arguments):
    """Run `prsr` in this process, in double precision."""
    monkeypatch.setattr(sys, "argv", ["prsr", *map(str, arguments)])
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        torch.set_default_dtype(torch.float32)
    assert not ended.value.code


def training(folder):
    """The arguments of a training that reports at steps 3, 6 and 7."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 21), ("validation", 5)):
        np.save(folder / f"{name}.npy", rng.integers(0, 8, (count, 3, 6, 6), dtype=np.uint8))
    arguments = ["train", "--data", folder / "train.npy", "--preset", "tiny", "--batch-size", 8]
    arguments += ["--validation", folder / "validation.npy", "--device", "cpu"]
    return [*arguments, "--steps", STEPS, "--report-every", 3]


def assert_same_weights(one, other):
    one, other = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    assert one.keys() == other.keys()
    for name, value in one.items():
        # Divided by RMSProp's ε, 1e-8, rounding errors of 1e-17 become 1e-9; weights move by 1e-2.
        assert torch.allclose(other[name], value, rtol=0, atol=1e-8), name


def test_two_processes_train_the_same_weights_as_one(tmp_path, monkeypatch, read_scalars):
    one, two = tmp_path / "one", tmp_path / "two"
    alone(monkeypatch, *training(tmp_path), "--out", one)
    printed = torchrun(tmp_path, *training(tmp_path), "--out", two)
    assert printed.count("wrote") == 1
    assert_same_weights(one, two)
    expected, found = read_scalars(one), read_scalars(two)
    assert {tag: len(steps) for tag, steps in expected.items()} == {
        "training/loss": STEPS,
        "training/gradient norm": STEPS,
        "training/learning rate": STEPS,
        "validation/bits/dim": 3,
        "validation/bits/dim, conditioning alone": 3,
        "validation/bits/dim, prior alone": 3,
    }
    assert found.keys() == expected.keys()
    for tag, pairs in expected.items():
        assert np.array(found[tag]) == pytest.approx(np.array(pairs), rel=1e-6), tag
    sheets = sorted(path.name for path in (one / "sheets").iterdir())
    assert sheets == ["step-0000003.png", "step-0000006.png", "step-0000007.png"]
    for sheet in sheets:
        assert (one / "sheets" / sheet).read_bytes() == (two / "sheets" / sheet).read_bytes()


def test_training_resumes_from_the_last_checkpoint_after_a_process_dies(
    tmp_path, monkeypatch, read_scalars
):
    one, two = tmp_path / "one", tmp_path / "two"
    alone(monkeypatch, *training(tmp_path), "--out", one)
    printed = torchrun(tmp_path, *training(tmp_path), "--out", two, dying=True)
    # Killed at step 5, the run resumes from the checkpoint of step 3 and does not repeat that step.
    assert [printed.count(f"step {step}: bits/dim") for step in (3, 6, 7)] == [1, 1, 1]
    assert_same_weights(one, two)
    assert len(read_scalars(two)["training/loss"]) == STEPS


def test_a_restart_does_not_resume_the_run_of_another_launch(tmp_path):
    out = tmp_path / "run"
    torchrun(tmp_path, *training(tmp_path), "--out", out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    longer = [str(STEPS + 1) if word == STEPS else word for word in training(tmp_path)]
    ended = launch(tmp_path, *longer, "--out", out, restarts=1)
    assert ended.returncode != 0
    assert "holds a run already" in ended.stderr
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_sampling_is_shared_and_resumes_after_a_process_dies(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    rng = np.random.default_rng(0)
    for number in range(7):
        size = (9, 9, 3) if number % 3 else (9, 12, 3)
        pixels = rng.integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / f"{number}.png")
    torch.manual_seed(0)
    PRSR(TINY).save_pretrained(tmp_path / "model")
    arguments = ["sample", tmp_path / "set", "--model", tmp_path / "model", "--low-resolution"]
    arguments += ["--seed", 3, "--samples", 2, "--device", "cpu"]
    alone(monkeypatch, *arguments, "--out", tmp_path / "one")
    printed = torchrun(tmp_path, *arguments, "--out", tmp_path / "two", dying=True)
    assert printed.count("wrote") == 2
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 7 * 2 + 1
    # A process killed while it writes may leave a hidden file.
    assert sorted(path.name for path in (tmp_path / "two").glob("[!.]*")) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    # The log may lack a file of the killed process, but none is written twice.
    written = Counter((tmp_path / "log.txt").read_text().split())
    assert set(written.values()) == {1}
    assert written["contact-sheet.png"] == 1


@pytest.mark.parametrize(("total", "parts"), [(7, [3, 2, 2]), (9, [3, 3, 3]), (2, [1, 1, 0])])
def test_shares_are_contiguous_and_cover_everything(monkeypatch, total, parts):
    monkeypatch.setattr(distributed, "count", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(distributed.share(total))
    assert [len(share) for share in shares] == parts
    assert [i for share in shares for i in share] == list(range(total))


def test_without_torchrun_there_is_one_process():
    assert distributed.join() is None
    assert (distributed.rank(), distributed.count(), distributed.is_restart()) == (0, 1, False)
    assert distributed.share(5) == range(5)
    assert distributed.gather("own") == ["own"]
    distributed.barrier()
    distributed.leave()


@pytest.mark.parametrize(("extra", "named"), [((), "seed"), (("--seed", "1"), "out")])
def test_options_required_under_torchrun_are_reported(command, monkeypatch, tmp_path, extra, named):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    monkeypatch.setattr(distributed, "join", lambda: torch.device("cpu"))
    monkeypatch.setattr(distributed, "count", lambda: 2)
    code, _, errors = command("sample", tmp_path / "a.png", "-o", tmp_path / "s.png", *extra)
    assert code == 2
    assert f"{named} must be" in errors
    assert errors.count("\n") == 1


ONE_DIES = """
import os
from prsr.utils import distributed
from prsr.cli.options import torchrun_processes
with torchrun_processes():
    if distributed.rank() == 1:
        os._exit(9)
    distributed.barrier()
"""


def test_the_death_of_a_process_is_reported_clearly_by_the_others():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    # Without torchrun, which may end the other process before it notices.
    both = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_DIES],
            env={**os.environ, **shared, "OMP_NUM_THREADS": "1", "LOCAL_RANK": rank, "RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    errors, _ = (process.communicate(timeout=120)[1] for process in both)
    message = "ConnectionError: another of torchrun's processes has died: see its errors"
    assert errors.splitlines()[-1].endswith(message), errors


@pytest.mark.parametrize(
    "variables", [{"LOCAL_RANK": "0"}, {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}]
)
def test_variables_of_other_launchers_are_ignored(variables, monkeypatch):
    for name in distributed.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert distributed.join() is None


def test_a_non_numeric_variable_is_named(monkeypatch):
    for name in distributed.VARIABLES:
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "all")
    with pytest.raises(ValueError, match="WORLD_SIZE must be a number, as torchrun sets it: 'all'"):
        distributed.join()
