"""A dry run of the GPU benchmark on the CPU, with the Triton kernels in the interpreter."""

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import prsr
from prsr.engines.cpu import CPUEngine

pytest.importorskip("triton", reason="Triton is made for Linux only")

EPSILON = 1e-4


def test_checks_on_a_gpu_would_notice(monkeypatch):
    """An ignored prior is noticed, also within bf16's wider bound; so is NaN in any slice."""
    from benchmarks import gpu_checks
    from benchmarks.gpu_bench import Bench
    from benchmarks.report import Report

    monkeypatch.setattr(gpu_checks, "CHECKED", 1)
    bench = Bench(prsr.PRSRConfig.preset("paper"), torch.device("cpu"), True, Report())
    call = gpu_checks.sampling_inputs(bench, 2)
    right = prsr.sample(call["lr"], model=bench.model, seed=0, engine="torch")
    assert gpu_checks.violation(bench.model, call, right) <= EPSILON
    assert gpu_checks.agreement(bench, right, right) == (0, 1)
    blind = copy.deepcopy(bench.model)
    with torch.no_grad():
        for parameter in blind.prior.parameters():
            parameter.zero_()
    wrong = prsr.sample(call["lr"], model=blind, seed=0, engine="torch")
    assert gpu_checks.violation(bench.model, call, wrong) > 10 * gpu_checks.BF16_EPSILON
    apart, equal = gpu_checks.agreement(bench, right, wrong)
    assert apart > EPSILON
    assert equal == 0
    call["noise"][1] = torch.nan
    monkeypatch.setattr(gpu_checks, "cdf_violation", lambda *part: part[3].sum((1, 2, 3)))
    assert math.isnan(gpu_checks.violation(bench.model, call, right))


def test_a_trained_model_and_places_in_a_batch_are_checked(monkeypatch):
    """By an engine that passes, and one that does not."""
    from benchmarks import gpu_checks
    from benchmarks.gpu_bench import Bench
    from benchmarks.report import Report

    bench = Bench(prsr.PRSRConfig.preset("tiny"), torch.device("cpu"), True, Report())
    checks = gpu_checks.Checks("cpu")
    gpu_checks.check_trained(bench, checks)
    gpu_checks.check_places(bench, checks, "fp32", 2, 9)
    assert [passed for _, passed in checks.outcomes] == [True, True, True]
    places = iter(range(9))
    monkeypatch.setattr(CPUEngine, "rows", lambda *call: call[1].images.fill_(next(places)))
    monkeypatch.setattr(CPUEngine, "start", lambda *call: SimpleNamespace(images=call[2].image))
    monkeypatch.setattr(gpu_checks, "cdf_violation", lambda *call: torch.tensor([torch.nan]))
    monkeypatch.setattr(prsr, "sample", lambda *call, **more: None)
    gpu_checks.check_trained(bench, checks)
    gpu_checks.check_places(bench, checks, "fp32", 2, 3)
    assert [passed for _, passed in checks.outcomes[3:]] == [False, False, False]


def test_dry_run_of_all_checks_and_measurements(tmp_path, monkeypatch):
    """All of it, in the interpreter, without compiling and without what only a GPU can do."""
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--preset", "tiny"]
    run = subprocess.run(
        [*command, "--quick", "--json", tmp_path / "gpu.json"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("passed: ") == 18
    assert run.stdout.count("dry run on a CPU") == 2
    told = json.loads((tmp_path / "gpu.json").read_text())
    assert {(r["precision"], r["batch"]) for r in told["figures"]} == {
        (precision, batch) for precision in ("fp32", "bf16") for batch in (1, 3)
    }
    alone = told["comparators"][0]
    strongest = min(alone[name] for name in ("graphs", "compiled"))
    assert alone["faster"] == strongest / alone["alone"]
    assert alone["naive"] > 0
    assert alone["eager"] > 0
