"""Sample images with an emulated extension and check them.

    python -m tests.engines.emulated_images EXTENSION [--thorough]

Run by test_cuda.py, under AddressSanitizer, and by mutate_cuda.py.
"""

import sys
from pathlib import Path

import torch

from prsr.testing import cdf_violation, random_images
from tests.conftest import build_model
from tests.engines.emulated import emulated, load
from tests.engines.test_cuda import (
    ALONE,
    ENGINE,
    EPSILON,
    FOUR,
    PAIR,
    PAIR_OF_TILES,
    SHARING,
    draw_all,
    job_of,
)

RUNS = (
    ("fp32", ALONE, 2, {"conditional_gates": True}),
    ("bf16", SHARING, 3, {"channels": 1, "prior_channels": 33}),
    ("fp16", PAIR, 1, {"levels": 40, "prior_channels": 60}),
    ("fp32", FOUR, 33, {"levels": 40, "channels": 1, "prior_layers": 1}),
)
THOROUGH = (
    ("fp32", ALONE, 2, {"prior_channels": 12, "prior_layers": 3, "head_channels": 150}),
    ("fp32", SHARING, 5, {"channels": 1, "prior_channels": 36, "prior_layers": 3}),
    ("fp32", PAIR, 2, {"channels": 1, "prior_channels": 36, "levels": 20, "head_channels": 40}),
    ("fp32", PAIR_OF_TILES, 20, {"levels": 40, "head_channels": 100}),
    ("fp32", FOUR, 40, {"levels": 70, "channels": 1}),
    ("fp32", ALONE, 1, {"levels": 70, "channels": 2}),
)


def main() -> None:
    """Raise AssertionError at the first wrong image."""
    extension = load(Path(sys.argv[1]))
    thorough = "--thorough" in sys.argv
    for precision, plan, n, changes in 2 * THOROUGH if thorough else RUNS:
        model = build_model(**changes)
        lr, job = job_of(model, random_images, n, *((2, 2) if thorough else (1, 1)))
        with emulated(extension, plan):
            draw_all(ENGINE, model, job, precision)
        worst = cdf_violation(model, lr, job.image, job.noise, 1.0).max()
        assert worst <= (EPSILON if precision == "fp32" else 0.05), worst
        print("right", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
