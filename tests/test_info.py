"""What `prsr info` reports about the extensions, built or missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from prsr.engines.native import INSTRUCTION_SET, instruction_sets
from prsr.info import cuda_build, describe_instruction_sets, engine_states, environment_tables


def no_driver():
    raise RuntimeError("CUDA driver version is insufficient")


def test_a_missing_cuda_extension_is_reported_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "prsr._cuda", None)
    [(name, value)] = cuda_build()
    assert name == "CUDA build"
    assert "not built" in value
    assert "PRSR_BUILD_CUDA=1" in value


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (no_driver, [("CUDA devices", "no device: CUDA driver version is insufficient")]),
        (
            lambda: [("A", (8, 0), 40 * 2**30), ("B", (9, 0), 80 * 2**30)],
            [
                ("CUDA device 0", "A, compute capability 8.0, 40.0 GiB"),
                ("CUDA device 1", "B, compute capability 9.0, 80.0 GiB"),
            ],
        ),
    ],
)
def test_the_cuda_build_and_its_devices_are_reported(monkeypatch, devices, expected):
    module = SimpleNamespace(
        version=lambda: "13.0", architectures=lambda: ["sm_80", "sm_90"], devices=devices
    )
    monkeypatch.setitem(sys.modules, "prsr._cuda", module)
    build = ("CUDA build", "CUDA 13.0, sm_80, sm_90, PTX for sm_90")
    assert cuda_build() == [build, *expected]
    assert set(cuda_build()) <= set(environment_tables()["Machine"])


@pytest.mark.skipif(not find_spec("prsr._cuda"), reason="the extension is not built: no nvcc")
def test_the_built_cuda_extension_reports_architectures_and_devices():
    (_, build), *devices = cuda_build()
    assert "sm_80, sm_90" in build
    assert devices
    assert all(value.startswith("no device: ") or "GiB" in value for _, value in devices)


@pytest.mark.skipif(not instruction_sets(), reason="the extension is not built")
def test_the_instruction_set_in_use_is_reported(monkeypatch):
    names = ", ".join(instruction_sets())
    monkeypatch.delenv(INSTRUCTION_SET, raising=False)
    assert describe_instruction_sets() == f"{names}; {instruction_sets()[-1]} in use"
    monkeypatch.setenv(INSTRUCTION_SET, instruction_sets()[0])
    assert describe_instruction_sets() == f"{names}; {instruction_sets()[0]} in use"
    monkeypatch.setenv(INSTRUCTION_SET, "altivec")
    assert "must be one of" in describe_instruction_sets()


def test_precisions_of_the_same_state_share_a_row():
    rows = [row[1:] for row in engine_states() if row[0] == "cpu"]
    (triton,) = [row for row in rows if row[0] == "triton"]
    assert triton[1] == "fp32, fp16, bf16"
    torch = [row for row in rows if row[0] == "torch"]
    assert [precision for _, precision, _ in torch] == ["fp32", "fp16", "bf16"]
    assert torch[0][2] == "ready"
    assert "not in fp16" in torch[1][2]
