"""Resource usage of the compiled Triton kernels; needs no GPU.

    python -m benchmarks.kernels [--preset paper] [--architectures 80 90 100] [--json]

compiles every variant that the engine ``triton`` launches (kernel, precision, images per program,
with and without known sub-pixels, and each launch that tuning chooses among) and prints registers
per thread, spilled bytes, shared memory, and the numbers of some kinds of instructions. ptxas comes
with Triton.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import triton
from prsr.kernels.autotune import LAUNCHES, options
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import prsr
from prsr.engines.base import Job
from prsr.engines.triton import SHARING, Launch, State, TritonEngine, launches

ALIGNED = [["tt.divisibility", 16]]
TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.uint8: "*u8",
    torch.bool: "*i1",
}


@dataclass(frozen=True)
class Compiled:
    """A compiled variant of a kernel.

    ``together`` is the number of images per program; ``masked`` is whether there are known
    sub-pixels (which do not affect ``vertical_row``); ``registers`` and ``spilled`` bytes are per
    thread, ``shared`` bytes per program; ``tensor``, ``fma`` and ``copies`` (asynchronous, to
    shared memory) count instructions.
    """

    kernel: str
    architecture: int
    precision: str
    together: int
    masked: bool
    warps: int
    stages: int
    registers: int
    spilled: int
    shared: int
    tensor: int
    fma: int
    copies: int


def variants(config: prsr.PRSRConfig, precision: str) -> Iterator[Launch]:
    """Every launch of the engine in one precision, for images of the model's size."""
    model = prsr.PRSR(config)
    height, width = config.scale * config.low_height, config.scale * config.low_width
    job = Job(
        conditioning=torch.zeros(1, config.levels, config.channels, height, width),
        features=torch.zeros(1, config.gate_inputs, height, width),
        noise=torch.zeros(1, height, width, config.channels),
        temperature=torch.ones(1),
        mask=None,
        image=torch.zeros(1, config.channels, height, width, dtype=torch.uint8),
    )
    engine = TritonEngine()
    weights = engine.pack(model.prior, precision)
    masked = replace(job, mask=torch.zeros(job.image.shape, dtype=torch.bool))
    # Images per program for small and large batches.
    for together in (1, 1), SHARING[weights.operand]:
        yield from launches(State(weights, job, together), 0)
        yield launches(State(weights, masked, together), 0)[1]


def compile_launch(
    launch: Launch, precision: str, architecture: int, chosen: dict[str, int]
) -> Compiled:
    """Compile a launch for CUDA's ``sm_<architecture>``."""
    kernel = launch.kernel.fn  # without the autotuner
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, parameter in enumerate(kernel.params):
        name, value = parameter.name, launch.arguments[parameter.name]
        if isinstance(value, torch.Tensor):
            signature[name] = TYPES[value.dtype]
            attributes[(index,)] = ALIGNED
        elif parameter.is_constexpr:
            signature[name] = "constexpr"
            constants[name] = value
        else:
            signature[name] = "i32"
            if not parameter.do_not_specialize and value % 16 == 0:
                attributes[(index,)] = ALIGNED
    code = triton.compile(
        ASTSource(kernel, signature, constants, attributes),
        target=GPUTarget("cuda", architecture, 32),
        options=chosen,
    )
    ptx = code.asm["ptx"]
    registers, spilled = resources(code.asm["cubin"])
    return Compiled(
        kernel=kernel.__name__,
        architecture=architecture,
        precision=precision,
        together=launch.arguments["IMAGES"],
        masked=launch.arguments.get("MASKED", False),
        warps=chosen["num_warps"],
        stages=chosen["num_stages"],
        registers=registers,
        spilled=spilled,
        shared=code.metadata.shared,
        tensor=len(re.findall(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)", ptx)),
        fma=len(re.findall(r"\bfma\.rn\.f32", ptx)),
        copies=len(re.findall(r"\bcp\.async\.c[ag]\.", ptx)),
    )


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers per thread, and bytes of its stack, which contains only spilled registers."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(cubin)
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        output = subprocess.run(
            [tool, "-res-usage", file], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", output)
    if found is None:
        raise RuntimeError(f"cuobjdump printed no registers: {output!r}")
    return int(found[1]), int(found[2])


def analyse(preset: str, architectures: list[int]) -> Iterator[Compiled]:
    """Every variant of a preset."""
    config = prsr.PRSRConfig.preset(preset)
    for precision in ("fp32", "fp16", "bf16"):
        for launch in variants(config, precision):
            for choice in LAUNCHES[launch.kernel.fn.__name__]:
                for architecture in architectures:
                    yield compile_launch(launch, precision, architecture, options(choice))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="paper", choices=list(prsr.PRESETS))
    parser.add_argument("--architectures", type=int, nargs="+", default=[80, 90, 100])
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    arguments = parser.parse_args()
    titles = list(Compiled.__dataclass_fields__)
    if not arguments.json:
        print(" ".join(f"{title:>14}" for title in titles))
    for compiled in analyse(arguments.preset, arguments.architectures):
        values = asdict(compiled)
        if arguments.json:
            print(json.dumps(values), flush=True)
        else:
            print(" ".join(f"{value:>14}" for value in values.values()), flush=True)


if __name__ == "__main__":
    main()
