"""Which of a short list of launches is the fastest is tried once for each kind of model and tile.

Only threads and stages of the pipeline are tried: neither changes the order of a sum, so the choice
does not change a picture. It may be tried on the job itself, for a row drawn twice is the same row.
"""

import triton

LAUNCHES = [(8, 2), (8, 1), (4, 2)]
"""Warps and stages of the pipeline."""

KEY = ["width", "D", "C", "L", "P", "P0", "IMAGES"]
"""A new choice where one of these, or the type of the weights, is new."""


def tuned(kernel):
    """``kernel`` launched as was fastest, the choice kept on disk with the compiled code."""
    launches = LAUNCHES[:1] if triton.knobs.runtime.interpret else LAUNCHES
    configs = [triton.Config({}, num_warps=warps, num_stages=stages) for warps, stages in launches]
    return triton.autotune(configs, KEY, cache_results=True)(kernel)
