"""Resource usage of the compiled kernels of the engine ``cuda``; needs no GPU.

    python -m benchmarks.cuda_kernels [--json]

disassembles the extension ``_cuda`` and prints, for each kernel and architecture, registers per
thread, spilled bytes, and the numbers of instructions, of tensor-core instructions, and of memory
fences outside and inside of loops. The disassembler comes with CUDA or Triton.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

FUNCTION = re.compile(
    r"Function : \S*?(vertical|horizontal)_kernel\S*?(Tf32|SplitFp16|Fp16|Bf16)(\S*)"
)
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?(\S+)[^;]*;")
BRANCH = re.compile(r"BRA\S* .*?0x([0-9a-f]+)")
OPERANDS = {"Tf32": "tf32", "SplitFp16": "split", "Fp16": "fp16", "Bf16": "bf16"}


@dataclass(frozen=True)
class Compiled:
    """A kernel compiled for an architecture.

    ``products`` counts tensor-core instructions, ``fences`` device-wide memory fences, and
    ``looped_fences`` those inside of loops. ``spilled`` is the size of a thread's stack in bytes,
    which contains only spilled registers.
    """

    kernel: str
    architecture: str
    operands: str
    shared_loads: bool
    registers: int
    spilled: int
    instructions: int
    products: int
    fences: int
    looped_fences: int


def tool() -> str | None:
    """The path of cuobjdump, or None."""
    found = shutil.which("cuobjdump") or shutil.which("/usr/local/cuda/bin/cuobjdump")
    spec = find_spec("triton")
    if found is None and spec is not None and spec.origin is not None:
        beside = Path(spec.origin).parent / "backends/nvidia/bin/cuobjdump"
        found = str(beside) if beside.exists() else None
    return found


def extension() -> Path | None:
    """The file of the module ``_cuda``, or None if it was not built."""
    spec = find_spec("prsr._cuda")
    return None if spec is None or spec.origin is None else Path(spec.origin)


def analyse(file: Path, cuobjdump: str) -> Iterator[Compiled]:
    """Every kernel in a file, for every architecture in it."""
    command = [cuobjdump, "-sass", "-res-usage", str(file)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage: dict[str, tuple[int, int]] = {}
    for section in re.split(r"\narch = ", output)[1:]:
        architecture = section.split(maxsplit=1)[0]
        for name, registers, stack in re.findall(
            r"Function (\S+):\s+REG:(\d+) STACK:(\d+)", section
        ):
            usage[name] = int(registers), int(stack)
        for code in re.split(r"(?=Function : )", section)[1:]:
            found = FUNCTION.match(code)
            if found is None:
                continue
            name = code.split()[2]
            instructions = [(int(at, 16), what) for at, what in INSTRUCTION.findall(code)]
            places = [at for at, what in instructions if what.startswith("MEMBAR.ALL.GPU")]
            loops = list(backward_branches(code))
            yield Compiled(
                kernel=f"{found[1]}_row",
                architecture=architecture,
                operands=OPERANDS[found[2]],
                shared_loads="Li2E" in found[3],
                registers=usage[name][0],
                spilled=usage[name][1],
                instructions=len(instructions),
                products=sum("MMA" in what for _, what in instructions),
                fences=len(places),
                looped_fences=sum(any(low <= at <= high for low, high in loops) for at in places),
            )


def backward_branches(code: str) -> Iterator[tuple[int, int]]:
    """First and last address of each loop."""
    for line in code.splitlines():
        at, branch = re.search(r"/\*([0-9a-f]{4,})\*/", line), BRANCH.search(line)
        if at and branch and int(branch[1], 16) < int(at[1], 16):
            yield int(branch[1], 16), int(at[1], 16)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    arguments = parser.parse_args()
    file, cuobjdump = extension(), tool()
    if file is None or cuobjdump is None:
        parser.error("needs the extension _cuda and the tool cuobjdump")
    titles = list(Compiled.__dataclass_fields__)
    if not arguments.json:
        print(" ".join(f"{title:>14}" for title in titles))
    for compiled in analyse(file, cuobjdump):
        values = asdict(compiled)
        if arguments.json:
            print(json.dumps(values))
        else:
            print(" ".join(f"{value!s:>14}" for value in values.values()))


if __name__ == "__main__":
    main()
