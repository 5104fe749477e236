"""``make gpu-all``: stages that fail or take too long, archives in parts, training for a time."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu, gpu_build, gpu_checks, gpu_training, parts
from benchmarks.gpu_all import PRECISIONS, Session, options
from benchmarks.gpu_training import Pace, Plan, Training, make_plan
from benchmarks.parts import read_archive, write_archive
from benchmarks.stages import run_stage
from prsr import PRSRConfig
from prsr.data.packed_arrays import pack
from prsr.training.trainer import Trainer, TrainSettings

ROOT = Path(__file__).parents[2]
MIB = 2**20
COMMAND = (sys.executable, "-m", "benchmarks.gpu_all", "--device", "cpu", "--preset", "tiny")


def python(code):
    return [sys.executable, "-c", code]


def test_stages_tell_what_became_of_them(tmp_path):
    log = tmp_path / "log"
    outcomes = {
        "passed": "print('first'); print('last\\n')",
        "failed": "import sys; print('reason'); sys.exit(3)",
        "skipped": "import sys; print('no such card'); sys.exit(77)",
    }
    results = [run_stage(name, python(code), 60, log) for name, code in outcomes.items()]
    assert [result.outcome for result in results] == list(outcomes)
    assert [r.detail for r in results] == ["last", "exit code 3; last line: reason", "no such card"]
    assert log.read_text() == "first\nlast\n\nreason\nno such card\n"
    absent = run_stage("absent", ["/no/such/program"], 60, log)
    assert absent.outcome == "failed"
    assert "/no/such/program" in absent.detail


def test_what_takes_too_long_is_killed_with_its_children(tmp_path):
    """Also those that left its session, and whose parent has ended."""
    code = """
import subprocess, sys, time
orphan = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}])"
subprocess.run([sys.executable, "-c", parent], start_new_session=True)
time.sleep(600)
"""
    log, beats = tmp_path / "log", []

    def tick():
        beats.append(log.read_text())
        raise OSError("a full disk")

    # Until the limit is long enough for the orphan to have started.
    end = time.monotonic() + 60
    limit = 2
    while time.monotonic() < end:
        log.unlink(missing_ok=True)
        result = run_stage("slow", python(code), limit, log, tick=tick, every=0.5)
        assert result.outcome == "timed out"
        if pid := log.read_text().strip():
            break
        limit *= 2
    assert result.detail == f"killed after {limit} s; last line: {pid}"
    assert result.seconds >= limit
    assert len(beats) >= 2
    state = Path("/proc", pid, "stat")  # gone, or a zombie that nobody has reaped yet
    assert not state.exists() or state.read_text().rpartition(") ")[2].startswith("Z")


def test_archives_are_cut_into_parts_and_come_back_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 20_000)
    root, out, into = (tmp_path / name for name in ("root", "out", "into"))
    (root / "model").mkdir(parents=True)
    out.mkdir()
    contents = {"log": b"text", "model/weights": os.urandom(50_000)}
    for name, data in contents.items():
        (root / name).write_bytes(data)
    files = [*(root / name for name in contents), root / "gone"]
    about = write_archive(out, "run", root, files)
    assert sorted(p.name for p in out.iterdir()) == [f"run.tar.{i}" for i in range(about["parts"])]
    assert about["parts"] == 4
    assert all(part.stat().st_size <= 20_000 for part in out.iterdir())
    read_archive(out, "run", about, into)
    assert {name: (into / name).read_bytes() for name in contents} == contents
    assert not (into / "gone").exists()

    later = write_archive(out, "run", root, files[:1])
    assert later["parts"] == 1
    assert [path.name for path in out.iterdir()] == ["run.tar.0"]
    with pytest.raises(ValueError, match="do not belong together"):
        read_archive(out, "run", about | {"parts": 1}, into)
    with pytest.raises(FileNotFoundError):
        read_archive(out, "run", about, into)


def test_output_of_the_default_training_fits_what_machines_give_back(tmp_path):
    """A real checkpoint of the default model, by the recipe: three parts, of a set trained last."""
    config = PRSRConfig.preset("paper-conditional")
    settings = TrainSettings(config, batch_size=1, optimizer="adamw", ema=0.999)
    trainer = Trainer(settings, "data", torch.device("cpu"))
    lr, hr = (torch.zeros(1, 3, side, side, dtype=torch.uint8) for side in (8, 32))
    trainer.train_step(lr, hr)
    run = tmp_path / "run"
    trainer.result.save_pretrained(run / "model")
    trainer.save(run / "checkpoint.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    write_archive(out, "last", run, [*run.glob("model/*"), run / "checkpoint.safetensors"])
    write_archive(out, "first", run, run.glob("model/*"))
    sizes = [file.stat().st_size for file in out.iterdir()]
    assert len(sizes) == 3 + 1
    assert max(sizes) <= 16 * MIB
    assert sum(sizes) <= 51 * MIB


PACE = Pace(start=10, step=0.05, report=5, options=("--compile",))


def test_plan_fills_the_time_with_steps_and_reports():
    plan = make_plan(PACE, 300, 0, None, 1, float("inf"))
    assert plan.steps == plan.last
    assert plan.report_every == (60 - 5) / 0.05
    taken = 10 + plan.last * 0.05 + plan.last / plan.report_every * 5
    assert taken == pytest.approx(0.95 * 300, abs=0.1)


def test_plan_for_several_machines_and_for_what_an_earlier_one_left():
    half = make_plan(PACE, 300, 0, None, 2, float("inf"))
    assert half.steps == 2 * half.last
    rest = make_plan(PACE, 600, half.last, half.steps, 1, float("inf"))
    assert (rest.last, rest.steps) == (half.steps, half.steps)
    more = make_plan(PACE, 100, half.last, half.steps, 1, float("inf"))
    assert half.last < more.last < more.steps == half.steps
    assert make_plan(PACE, 300, 7, None, 1, 10).last == 17
    with pytest.raises(ValueError, match="too short"):
        make_plan(PACE, 10, 0, None, 1, float("inf"))


def test_training_goes_on_without_a_compiler_that_fails(tmp_path, monkeypatch):
    chosen = argparse.Namespace(
        name="set", data=tmp_path, work=tmp_path, seconds=100, machines=1, preset="tiny",
        device="cuda", batch_size=256,
    )  # fmt: skip
    training, tried = Training(chosen), []

    def train(folder, plan, *options, limit):
        tried.append((options[-1], plan, limit))
        return None if "--compile" in options else 0

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(gpu_training, "pace_of", lambda *found: found)
    assert training.measure()[3] == ()
    plan = Plan(150, 150, 75)
    assert [(last, plan) for last, plan, _ in tried] == [("--compile", plan), ("tiny", plan)]
    assert all(limit <= 50 for *_, limit in tried)


def test_pace_is_that_of_the_steps_between_two_reports(tmp_path, monkeypatch):
    """As a GPU's scalars are written: 50 steps at a time, and what is unread at a report."""
    start, clock = 1000.0, {}
    for first, last, at in ((1, 50, 40.0), (51, 75, 41.0), (76, 125, 60.0), (126, 150, 61.0)):
        clock |= dict.fromkeys(range(first, last + 1), start + at)
    events = [argparse.Namespace(step=step, wall_time=wall) for step, wall in clock.items()]
    monkeypatch.setattr(gpu_training, "scalars", lambda _: {"training/loss": events})
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.touch()
    os.utime(checkpoint, (start + 64, start + 64))
    pace = gpu_training.pace_of(tmp_path, 150, start, ())
    assert pace == Pace(start=61 - 150 / 25, step=1 / 25, report=3, options=())


def checks(monkeypatch, *arguments):
    command = ["gpu", "--device", "cpu", "--preset", "tiny", "--quick", "--only", "checks"]
    monkeypatch.setattr(sys, "argv", [*command, *arguments])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    return ended.value.code


def test_checks_go_on_after_a_failure_and_an_error(tmp_path, monkeypatch, capsys):
    def violation(*_):
        if len(calls) < 2:
            calls.append(0)
            return 1.0
        raise RuntimeError("an illegal address\nand more")

    calls = []
    monkeypatch.setattr(gpu_checks, "violation", violation)
    code = checks(monkeypatch, "--engine", "torch", "--json", str(tmp_path / "json"))
    told = capsys.readouterr().out
    assert code == 1
    assert told.count("FAILED: fp32, batch") == 3
    assert "FAILED: fp32, batch 3: RuntimeError: an illegal address\n" in told
    assert "passed: fp32: 2 more runs" in told
    assert told.endswith("engine torch: 4 of 7 checks fail\n")
    outcomes = json.loads((tmp_path / "json").read_text())["checks"]
    assert [passed for _, passed in outcomes] == [False] * 3 + [True] * 3 + [False]


def test_an_engine_that_cannot_serve_is_left_out(monkeypatch, capsys):
    assert checks(monkeypatch, "--engine", "cpu", "--device", "cuda") == 77
    assert (
        "engine cpu does not support this machine: there is no device cuda"
        in capsys.readouterr().out
    )


def test_a_module_that_was_not_built_is_told():
    assert gpu_build.missing("json") == ""
    assert gpu_build.missing("json.absent") == "ModuleNotFoundError: No module named 'json.absent'"


@pytest.fixture
def packed(tmp_path):
    config, random = PRSRConfig.preset("tiny"), np.random.default_rng(0)
    size = config.scale * config.low_height, config.scale * config.low_width
    folder = tmp_path / "packed"
    folder.mkdir()
    for part, count in (("train", 20), ("validation", 2)):
        array = tmp_path / f"{part}.npy"
        np.save(array, random.integers(config.levels, size=(count, 3, *size), dtype=np.uint8))
        pack(array, folder / f"portraits-{part}.zip")
        (folder / f"damaged-{part}.zip").write_bytes(b"no archive")
    return folder


def session(packed, tmp_path, out, *options):
    """A dry run; returns its exit code, its summary, and the files of ``OUT``."""
    command = [
        *COMMAND,
        *("--batch-size", "4", "--data", packed, "--out", out, "--seconds", "600", "--every", "1"),
        *("--limit", "build=0", "--share", "damaged=0.1", "--share", "portraits=0.5"),
        *("--share", "cartoons=0.4"),
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*command, *options], cwd=ROOT, env=environment, check=False)
    summary = json.loads((out / "summary.json").read_text())
    stages = {stage["stage"]: stage for stage in summary["stages"]}
    files = list(out.iterdir())
    assert all(file.is_file() and file.stat().st_size <= 16 * MIB for file in files)
    assert len(files) <= 8
    return run.returncode, stages


def test_dry_run_from_the_first_stage_to_a_second_machine(packed, tmp_path):
    """No stage stops the next; the training goes on where the first machine left it."""
    first, second = tmp_path / "first", tmp_path / "second"
    late = ("--limit", "engine-triton=1", "--limit", "figures=1", "--machines", "2")
    code, stages = session(packed, tmp_path, first, *late)
    assert code == 1
    assert {name: stage["outcome"] for name, stage in stages.items()} == {
        "build": "skipped",
        **{f"engine-cuda-{precision}": "skipped" for precision in PRECISIONS},
        "cuda": "skipped",
        "engine-triton": "timed out",
        "figures": "timed out",
        "engine-torch": "passed",
        "sanitizer-cuda": "skipped",
        "sanitizer-triton": "skipped",
        "train-cartoons": "skipped",
        "train-damaged": "failed",
        "train-portraits": "passed",
    }
    assert stages["train-portraits"]["detail"].startswith("step 12 of 24, 4 images each")
    assert "portraits/checkpoint.safetensors" in names(first / "portraits.tar.0")
    assert {"logs/engine-torch.log", "logs/train-damaged.log"} <= names(first / "report.tar.0")
    assert (first / "summary.txt").read_text().count("\n") == 13

    left_out = ("--limit", "engine=0", "--limit", "figures=0", "--limit", "train-damaged=0")
    code, stages = session(packed, tmp_path, second, *left_out, "--resume", first)
    assert code == 0
    assert stages["train-portraits"]["detail"].startswith("step 24 of 24, 4 images each")
    assert "portraits/model/model.safetensors" in names(second / "portraits.tar.0")


def test_the_longest_beginning_of_a_stage_s_name_sets_its_limit(tmp_path, monkeypatch, capsys):
    command = ["gpu_all", "--out", str(tmp_path / "out"), "--seconds", "600"]
    chosen = ["--limit", "engine-cuda=7", "--limit", "engine-cuda-bf16=3", "--limit", "train=9"]
    monkeypatch.setattr(sys, "argv", [*command, *chosen])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    session = Session(options())
    limits = {"engine-cuda-fp32": 7, "engine-cuda-bf16": 3, "cuda": 100, "engine-torch": 60}
    for name, seconds in (limits | {"train-portraits": 9, "build": 100}).items():
        assert session.limit(name, 100) == seconds
    monkeypatch.setattr(sys, "argv", [*command, "--limit", "engine-cud=7"])
    with pytest.raises(SystemExit):
        options()
    assert "--limit: there is no stage engine-cud" in capsys.readouterr().err


def names(archive):
    with tarfile.open(archive) as file:
        return set(file.getnames())


def test_what_is_ended_from_outside_leaves_a_summary_and_no_process(tmp_path):
    limits = ["--limit", "build=0", "--limit", "engine-triton=0", "--limit", "figures=0"]
    command = [*COMMAND, "--seconds", "600", *limits, "--out", tmp_path / "out"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "MARK_OF_THIS_TEST": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as run:
        while b"engine-torch: at most" not in run.stdout.readline():
            pass
        run.terminate()
        run.stdout.read()
    assert run.returncode == 143
    told = (tmp_path / "out" / "summary.txt").read_text()
    assert "interrupted: SystemExit" in told
    mark = f"MARK_OF_THIS_TEST={tmp_path}".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            assert mark not in environ.read_bytes()


def test_of_sets_trained_earlier_the_model_alone_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    one = Session(argparse.Namespace(out=tmp_path / "out", seconds=100))
    for name in ("portraits", "cartoons"):
        (one.work / name / "model").mkdir(parents=True)
        (one.work / name / "model" / "model.safetensors").write_text("weights")
        (one.work / name / "checkpoint.safetensors").write_text("everything")
        one.trained.append(name)
        one.publish()
    model, checkpoint = "model/model.safetensors", "checkpoint.safetensors"
    assert names(one.out / "portraits.tar.0") == {f"portraits/{model}"}
    assert names(one.out / "cartoons.tar.0") == {f"cartoons/{model}", f"cartoons/{checkpoint}"}
