"""Autotuning: the fastest of a few launch configurations, for each kind of model and tile.

The configurations differ in warps, pipeline stages and registers per thread. None of these changes
the order of a sum, so the choice does not change an image. Tuning may run on the job itself,
because drawing a row twice gives the same row.
"""

import torch
import triton

LAUNCHES = {
    "vertical_row": [(8, 3, 255), (8, 4, 232)],
    "horizontal_row": [(8, 2, 208), (8, 3, 200)],
}
"""Warps, stages and maximum registers per thread, for each kernel. With these limits, found
empirically, no kernel spills registers on the presets ``paper`` and ``paper-conditional``: see
``python -m benchmarks.kernels``. Without limits, or with 255, ptxas sometimes hoists loads that it
then has to spill."""

KEY = ["width", "D", "C", "L", "P", "P0", "F", "IMAGES"]
"""Tuning is repeated when one of these arguments, or the dtype of the weights, changes."""


def options(launch):
    """A launch as keyword arguments of the compiler; AMD's has no register limit."""
    warps, stages, registers = launch
    named = {"num_warps": warps, "num_stages": stages}
    return named if torch.version.hip else named | {"maxnreg": registers}


def tuned(kernel):
    """``kernel`` with autotuning; the result is cached on disk with the compiled code."""
    launches = LAUNCHES[kernel.__name__]
    if triton.knobs.runtime.interpret:
        launches = launches[:1]
    configs = [triton.Config({}, **options(launch)) for launch in launches]
    return triton.autotune(configs, KEY, cache_results=True)(kernel)
