"""What the CUDA kernels are compiled to, and benchmarks of the engine ``cuda`` without a GPU."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

import prsr
from benchmarks import cuda_kernels, gpu_cuda, gpu_cuda_clocks
from benchmarks.gpu_bench import Bench
from benchmarks.gpu_checks import Checks
from benchmarks.report import Report
from prsr.engines import cuda
from prsr.engines.cuda_formats import PRECISIONS
from tests.engines.emulated import EMULATION, emulated

pytestmark = EMULATION


@pytest.mark.skipif(
    not (cuda_kernels.extension() and cuda_kernels.tool()),
    reason="the extension is not built (no nvcc), or there is no cuobjdump to read it",
)
def test_kernels_are_compiled_without_spilling():
    compiled = list(cuda_kernels.analyse(cuda_kernels.extension(), cuda_kernels.tool()))
    architectures = import_module("prsr._cuda").architectures()
    assert len(compiled) == 3 * 4 * len(architectures)  # kernels and formats
    for kernel in compiled:
        assert kernel.spilled == 0, kernel
        assert kernel.products > 0, kernel
        assert kernel.looped_fences == 0, kernel


def test_gpu_measurements_run_in_the_emulation(extension, monkeypatch):
    """Every table, without what only a GPU can do."""
    told = Report()
    with emulated(extension):
        bench = Bench(prsr.PRESETS["tiny"], torch.device("cpu"), True, told)
        assert gpu_cuda.measure(bench, [1, 3]) == 0
    assert len(told.results["cuda"]) == 6
    assert [r["variant"] for r in told.results["variants"]] == [
        *("split, look-ahead", "tf32, look-ahead", "split", "tf32"),
        *("fp16, look-ahead", "fp16", "bf16, look-ahead", "bf16"),
    ]
    assert len(told.results["checks"]) == 8
    whats = [r["what"] for r in told.results["clocks"]]
    assert whats[:2] == ["clusters of 16", "clusters of 8"]
    assert {what.partition(": ")[2] for what in whats[2:]} == set(gpu_cuda_clocks.PHASES)
    assert not told.results["targets"]


def test_gpu_measurements_go_on_after_one_that_fails(extension, monkeypatch, capsys):
    """Of several, each of which may raise."""

    def fail(*arguments):
        raise RuntimeError("an illegal address")

    told = Report()
    for name in "measure", "phases":
        monkeypatch.setattr(cuda, name, fail)
    monkeypatch.setattr(gpu_cuda, "batch_record", fail)
    with emulated(extension):
        bench = Bench(prsr.PRESETS["tiny"], torch.device("cpu"), True, told)
        assert gpu_cuda.measure(bench, [1]) == 1 + 3 * 2 + 8 + 3
    assert "FAILED: limits: RuntimeError: an illegal address" in capsys.readouterr().out
    assert [r["what"] for r in told.results["clocks"]] == ["clusters of 16", "clusters of 8"]


def test_gpu_comparators_and_targets(monkeypatch, capsys):
    bench = Bench(prsr.PRESETS["tiny"], torch.device("cpu"), True, Report())
    monkeypatch.setattr(gpu_cuda, "triton_record", lambda *job: {"alone": 0.04})
    monkeypatch.setattr(gpu_cuda, "comparators", lambda *job: dict.fromkeys(job[2], 0.5))
    records = [
        {"precision": p, "batch": 1, "alone": 0.01, "call": 0.012, "rate": 50_000.0}
        for p in PRECISIONS
    ]
    compared = gpu_cuda.compare(bench, Checks("cuda"), records)
    assert [(r["by_triton"], r.get("by_graphs")) for r in compared] == [
        (4, 50 if p == "fp32" else None) for p in PRECISIONS
    ]
    gpu_cuda.check_own_targets(bench, records)
    gpu_cuda.check_compared_targets(bench, compared)
    met = {target["what"]: target["met"] for target in bench.report.results["targets"]}
    assert met == {
        **{f"one image in {p}, ms": p == "fp32" for p in PRECISIONS},
        **{f"images per second in {p}": p == "fp32" for p in PRECISIONS},
        "faster than triton, at least": True,
        "faster than torch under CUDA graphs, at least": True,
    }
