"""Which of a short list of launches is the fastest is tried once for each kind of model and tile.

Only threads, stages of the pipeline and the registers of a thread are tried: none changes the
order of a sum, so the choice does not change an image. It may be tried on the job itself, for a
row drawn twice is the same row.
"""

import torch
import triton

LAUNCHES = {
    "vertical_row": [(8, 3, 255), (8, 4, 232)],
    "horizontal_row": [(8, 2, 208), (8, 3, 200)],
}
"""Warps, stages and most registers of a thread, for each kernel. With these limits, found by
trying, none spills on the presets ``paper`` and ``paper-conditional``: ``python -m
benchmarks.kernels`` shows it. Left to itself, or given all 255, ptxas sometimes hoards what it then
has to spill."""

KEY = ["width", "D", "C", "L", "P", "P0", "F", "IMAGES"]
"""A new choice where one of these, or the type of the weights, is new."""


def options(launch):
    """A launch by the names that the compiler has for its numbers; AMD's has none for the last."""
    warps, stages, registers = launch
    named = {"num_warps": warps, "num_stages": stages}
    return named if torch.version.hip else named | {"maxnreg": registers}


def tuned(kernel):
    """``kernel`` launched as was fastest, the choice kept on disk with the compiled code."""
    launches = LAUNCHES[kernel.__name__]
    if triton.knobs.runtime.interpret:
        launches = launches[:1]
    configs = [triton.Config({}, **options(launch)) for launch in launches]
    return triton.autotune(configs, KEY, cache_results=True)(kernel)
