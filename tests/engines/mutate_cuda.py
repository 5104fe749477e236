"""Remove each wait, arrival and barrier of the CUDA kernels in turn, and check that a run fails.

    python -m tests.engines.mutate_cuda [NUMBER …]

For each mutant of csrc/cuda, build it for the emulation, sample some images, and print its place
and the result: a wrong image, a deadlock, or PASSES. The exit code is 1 if one passes.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.engines.emulated import ROOT, build

STATEMENT = re.compile(
    r"^ *(?:if \([^;{]*\) )?device::"
    r"(?:block_barrier|cluster_barrier|wait|arrive_expecting|publish_barriers)\([^;]*\);",
    re.MULTILINE,
)


def mutants() -> Iterator[tuple[Path, int, str, str]]:
    """File, line, removed statement, and the text of the file without it."""
    for file in sorted((ROOT / "csrc/cuda").glob("*.h")):
        text = file.read_text()
        for found in STATEMENT.finditer(text) if file.name != "intrinsics.h" else ():
            line = text.count("\n", 0, found.start()) + 1
            yield file, line, found[0].strip(), text[: found.start()] + ";" + text[found.end() :]


def run_mutant(file: Path, text: str) -> str:
    """Build and run a mutant; the result in words."""
    with tempfile.TemporaryDirectory() as folder:
        kernels = Path(folder)
        for source in (ROOT / "csrc/cuda").glob("*.*"):
            (kernels / source.name).write_text(source.read_text())
        (kernels / file.name).write_text(text)
        module = build("-O1", kernels=kernels)
        command = [sys.executable, "-m", "tests.engines.emulated_images", module, "--thorough"]
        try:
            run = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
            )
        except subprocess.TimeoutExpired:
            return "does not end"
        finally:
            module.unlink()
            module.parent.rmdir()
    if run.returncode == 0:
        return "PASSES"
    return run.stderr.strip().splitlines()[-1][:80] if run.stderr else f"exit {run.returncode}"


def main() -> None:
    """Run all mutants, or those with the given numbers."""
    chosen = {int(number) for number in sys.argv[1:]}
    passed = 0
    for number, (file, line, removed, text) in enumerate(mutants()):
        if chosen and number not in chosen:
            continue
        result = run_mutant(file, text)
        passed += result == "PASSES"
        print(f"{number:2} {file.name}:{line} {' '.join(removed.split())} -> {result}", flush=True)
    sys.exit(passed > 0)


if __name__ == "__main__":
    main()
