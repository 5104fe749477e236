"""The error of ``precision="bf16"`` in the distribution of a sub-pixel.

    python -m benchmarks.precision

It prints the total-variation distance (half the sum of |p − q| over the levels) between the
distributions of the model in fp32 and in bf16, over all sub-pixels of samples of the bundled model.
The probability of any event of a draw changes by at most this distance. The distributions in bf16
are those of a copy of the model that rounds as the engines do, computed by one parallel forward
pass; the tests check the engines against such copies.

In bf16, every engine rounds both operands of every product except in the first layers; sums,
biases, gates, residuals and the conditioning network are in fp32 (docs/SPEC.md, section 2).
"""

from __future__ import annotations

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import prsr
from prsr.models.model_files import DEFAULT_MODEL, bundled_inputs
from prsr.testing import with_rounded_operands

TEMPERATURES = (1.0, 0.8)


def total_variation(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Distances between the softmaxes of logits ``[N, K, …]``, float64 ``[N, …]``."""
    p, q = ((logits.double() / temperature).softmax(dim=1) for logits in (one, other))
    return (p - q).abs().sum(dim=1) / 2


@torch.no_grad()
def main() -> None:
    """Measure and print the table."""
    model = prsr.PRSR.from_pretrained(DEFAULT_MODEL)
    lr = bundled_inputs(DEFAULT_MODEL)
    hr = prsr.sample(lr, model=model, seed=0)
    exact = model(lr, hr).logits
    table = Table(title=f"Total-variation distance, {hr.numel():,} sub-pixels of {len(hr)} samples")
    for heading in ("temperature", "mean", "99.9th percentile", "largest"):
        table.add_column(heading, justify="right")
    moved = with_rounded_operands(model)(lr, hr).logits
    for temperature in TEMPERATURES:
        distances = total_variation(exact, moved, temperature).flatten()
        figures = (distances.mean(), distances.quantile(0.999), distances.max())
        table.add_row(f"{temperature:g}", *(f"{float(f):.2e}" for f in figures))
    console = Console(width=100, highlight=False)
    console.print(f"prsr {prsr.__version__}, torch {torch.__version__}, model {DEFAULT_MODEL}")
    console.print(table)


if __name__ == "__main__":
    main()
