"""Draws a few images by an emulated extension, and says whether they are right: see test_cuda.py.

python emulated_images.py EXTENSION
"""

import sys
from pathlib import Path

import torch
from conftest import build_model, build_pictures
from emulated import emulated, load
from test_cuda import ALONE, ENGINE, EPSILON, FOUR, PAIR, SHARING, draw_all, job_of

from prsr.testing import cdf_violation

RUNS = (
    ("fp32", ALONE, 2, {"conditional_gates": True}),
    ("bf16", SHARING, 3, {"channels": 1, "prior_channels": 33}),
    ("fp16", PAIR, 1, {"levels": 40, "prior_channels": 60}),
    ("fp32", FOUR, 33, {"levels": 40, "channels": 1, "prior_layers": 1}),
)


def main() -> None:
    """Raise AssertionError at the first that is wrong."""
    extension = load(Path(sys.argv[1]))
    for precision, plan, n, changes in RUNS:
        model = build_model(**changes)
        lr, job = job_of(model, build_pictures, n, 1, 1)
        with emulated(extension, plan):
            draw_all(ENGINE, model, job, precision)
        worst = cdf_violation(model, lr, job.picture, job.noise, 1.0).max()
        assert worst <= (EPSILON if precision == "fp32" else 0.05), worst
        print("right")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
