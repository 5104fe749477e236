"""What ``precision="bf16"`` costs: how far the head's rounded weights move a draw's distribution.

    python -m benchmarks.precision

Over every sub-pixel of the bundled model's held-out pictures, the total-variation distance (half
the sum of |p − q| over the levels) between what the model draws from and what it would draw from
with the weights of both layers of the prior's head in bfloat16. Everything else is fp32 on both
sides, and one parallel forward each gives all distributions. Nothing that can come of a draw gets
more or less probable by more than this distance.
"""

from __future__ import annotations

import copy

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import prsr
from prsr.checkpoint import BUNDLED, DEFAULT_MODEL
from prsr.data import SuperResolutionPictures

TEMPERATURES = (1.0, 0.8)


def with_rounded_head(model: prsr.PRSR) -> prsr.PRSR:
    """A copy of which the weights of the prior's head are bfloat16 numbers; biases stay."""
    rounded = copy.deepcopy(model)
    for layer in rounded.prior.head:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.bfloat16().float()
    return rounded


def total_variation(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Distances between the softmaxes of logits ``[N, K, …]``, float64 ``[N, …]``."""
    p, q = ((logits.double() / temperature).softmax(dim=1) for logits in (one, other))
    return (p - q).abs().sum(dim=1) / 2


@torch.no_grad()
def main() -> None:
    """Print the table."""
    model = prsr.PRSR.from_pretrained(DEFAULT_MODEL)
    rounded = with_rounded_head(model)
    held_out = SuperResolutionPictures.open(BUNDLED / DEFAULT_MODEL / "held-out.npy", model.config)
    lr, hr = held_out.batch(slice(None))
    logits = model(lr, hr).logits, rounded(lr, hr).logits
    table = Table(
        title=f"Total-variation distance, {hr.numel():,} sub-pixels of {len(hr)} held-out pictures"
    )
    for heading in ("temperature", "mean", "99.9th percentile", "largest"):
        table.add_column(heading, justify="right")
    for temperature in TEMPERATURES:
        distances = total_variation(*logits, temperature).flatten()
        figures = (distances.mean(), distances.quantile(0.999), distances.max())
        table.add_row(f"{temperature:g}", *(f"{float(figure):.2e}" for figure in figures))
    console = Console(width=100, highlight=False)
    console.print(f"prsr {prsr.__version__}, torch {torch.__version__}, model {DEFAULT_MODEL}")
    console.print(table)


if __name__ == "__main__":
    main()
