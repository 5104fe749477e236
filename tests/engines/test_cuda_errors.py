"""Errors of the CUDA runtime name the call, and running out of memory is a MemoryError."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]

RUNTIME = """
#pragma once
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorLaunchFailure = 719 };
inline int resets = 0;
inline void cudaGetLastError() { ++resets; }
inline const char* cudaGetErrorString(cudaError_t e) { return e == 2 ? "no memory" : "failure"; }
"""
"""What cuda_error.h needs of CUDA's header."""

PROGRAM = """
#include "cuda_error.h"
#include <cstdio>
int main() {
  prsr::check(cudaSuccess, "cudaA");
  std::printf("%d\\n", resets);
  try { prsr::check(cudaErrorMemoryAllocation, "cudaB"); }
  catch (const std::bad_alloc& e) { std::printf("bad_alloc %s\\n", e.what()); }
  try { prsr::check(cudaErrorLaunchFailure, "cudaC"); }
  catch (const std::runtime_error& e) { std::printf("runtime_error %s\\n", e.what()); }
  std::printf("%d\\n", resets);
}
"""


@pytest.mark.skipif(
    not shutil.which(os.environ.get("CXX", "c++")), reason="there is no C++ compiler"
)
def test_every_error_is_reset_and_names_the_call(tmp_path):
    (tmp_path / "cuda_runtime.h").write_text(RUNTIME)
    (tmp_path / "main.cpp").write_text(PROGRAM)
    compiler = os.environ.get("CXX", "c++")
    includes = [f"-I{tmp_path}", f"-I{ROOT / 'csrc/cuda'}"]
    source, program = tmp_path / "main.cpp", tmp_path / "main"
    subprocess.run([compiler, "-std=c++17", *includes, source, "-o", program], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert printed.splitlines() == [
        "0",
        "bad_alloc cudaB: no memory",
        "runtime_error cudaC: failure",
        "2",
    ]


@pytest.mark.skipif(find_spec("prsr._cuda") is None, reason="the extension is not built (no nvcc)")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so that no call fails")
@pytest.mark.parametrize(
    ("function", "arguments", "call"),
    [
        ("use", (0,), "cudaSetDevice"),
        ("shared_limit", (), "cudaGetDevice"),
        ("active_clusters", ("bf16", 16, 1024), "cudaGetDevice"),
        ("devices", (), "cudaGetDeviceCount"),
        ("measure", (0, 0, 0), "cudaGetDevice"),
    ],
)
def test_without_a_gpu_every_function_names_the_call(function, arguments, call):
    with pytest.raises(RuntimeError, match=f"^{call}: "):
        getattr(import_module("prsr._cuda"), function)(*arguments)
