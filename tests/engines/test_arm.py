"""The engine ``cpu`` on 64-bit Arm: compiled for it, and run in an emulator."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import prsr
from prsr.engines.base import Job
from prsr.engines.cpu import State
from prsr.engines.cpu_layout import CPUWeights, PriorConfig
from prsr.engines.effective_weights import plain_copy
from prsr.engines.grouped_weights import pack_prior
from prsr.sampling.conditioning import Conditioner
from prsr.testing import cdf_violation, with_rounded_operands

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"

pytestmark = [
    pytest.mark.large,
    pytest.mark.skipif(
        not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
        reason=f"no {COMPILER} or no {EMULATOR}: apt install g++-aarch64-linux-gnu qemu-user",
    ),
]

ARRAYS = (
    "weights", "offsets", "values", "vertical", "above", "ahead", "horizontal", "conditioning",
    "features", "noise", "temperature", "mask", "image",
)  # fmt: skip
"""Those of ``rows_from_file.cpp``, in its order."""


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """``rows_from_file.cpp`` with the kernels, for 64-bit Arm."""
    sources = Path(__file__).parents[2] / "csrc/cpu"
    files = [path for path in sources.glob("*.cpp") if path.name != "bindings.cpp"]
    path = tmp_path_factory.mktemp("arm") / "rows_from_file"
    options = ["-std=c++17", "-O2", "-ffp-contract=fast", "-pthread", "-static", f"-I{sources}"]
    options += ["-DPRSR_KERNEL=kernel_baseline", "-DPRSR_CONDITION=condition_baseline"]
    main = Path(__file__).with_name("rows_from_file.cpp")
    unhindered = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}  # of sanitizers
    command = [COMPILER, *options, *map(str, files), str(main), "-o", str(path)]
    subprocess.run(command, check=True, env=unhindered)
    return path


def run(program, *arguments):
    """What the program prints."""
    unhindered = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    command = [EMULATOR, str(program), *map(str, arguments)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=300, env=unhindered
    ).stdout


def draw(program, weights, job, folder, threads):
    """Draw all rows of a job on the emulated processor."""
    for part in State(weights, job).parts:
        operands = part.operands
        image = operands["image"]
        sizes = len(image) // part.bundle, part.bundle, *image.shape[2:]
        arrays = [
            b"" if operands[name] is None else operands[name].numpy().tobytes() for name in ARRAYS
        ]
        numbers = np.array([*operands["config"], *sizes, *map(len, arrays)], np.int64)
        (folder / "input").write_bytes(numbers.tobytes() + b"".join(arrays))
        run(program, folder / "input", folder / "output", threads)
        pixels = np.frombuffer((folder / "output").read_bytes(), np.uint8)
        image.copy_(torch.from_numpy(pixels.reshape(image.shape).copy()))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"channels": 1, "levels": 7, "prior_channels": 5, "head_channels": 9, "prior_layers": 1},
        {"prior_channels": 33, "head_channels": 35, "conditional_gates": True, "prior_kernel": 3},
    ],
)
def test_emulated_arm_draws_what_the_training_network_says(
    program, make_model, make_images, threads, tmp_path, changes, precision
):
    threads(1)
    model = make_model(**changes)
    config = model.config
    n, height, width = 10, 2, 3  # a bundle, and two images that are drawn one by one
    lr = make_images(config, n, height, width)
    size = config.scale * height, config.scale * width
    noise = prsr.noise(0, n, *size, config.channels)
    known = make_images(config, n, *size, seed=1)
    mask = torch.rand(known.shape) < 0.2
    temperature = torch.linspace(0.5, 1.5, n)
    strips = tuple(map(int, run(program).split()))
    weights = CPUWeights(
        pack_prior(plain_copy(model.prior)), PriorConfig.of(config, precision), strips, "neon"
    )
    images = {}
    for name, chosen, count in (("all", slice(0, n), 1), ("one by one", slice(1, 4), 2)):
        conditioning = Conditioner(model.conditioning, config, lr.device)(lr[chosen])
        image = torch.where(mask, known, 0)[chosen]
        job = Job(*conditioning, noise[chosen], temperature[chosen], mask[chosen], image)
        draw(program, weights, job, tmp_path, count)
        images[name] = image
    assert torch.equal(images["all"][1:4], images["one by one"])
    rounded, limit = model, 1e-4
    if precision == "bf16":
        rounded, limit = with_rounded_operands(model), 0.02  # SPEC, section 2
    found = cdf_violation(rounded, lr, images["all"], noise, temperature, mask)
    assert found.max() <= limit
