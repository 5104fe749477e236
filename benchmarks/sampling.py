"""How long a picture takes, beside the naive sampler and the arithmetic bound, in one run.

    python -m benchmarks.sampling [--preset paper] [--batches 1 16]

For each batch size: milliseconds a picture by every engine that can serve here but the naive one
(median, with the fastest and slowest run), the naive sampler's (a few whole forwards are timed and
multiplied by H·W·D, for it would take minutes), and the bound: the multiply-adds that the prior
must do once a picture (SPEC's count, masked ones left out), over the rate of a large fp32 matrix
product on the same cores. Weights are random: the work does not depend on them.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

import prsr
from prsr.engines import ENGINES
from prsr.engines.packing import Packed, pack_prior


def seconds(work: Callable[[], object], runs: int) -> list[float]:
    """Wall time of each of ``runs`` runs, after one that does not count."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def needed_flops(packed: Packed, pixels: int) -> int:
    """Two for each weight that is not masked, for every pixel: what a sampler cannot avoid."""
    weights = [packed.first_vertical.weight, packed.first_left.weight, *packed.first_own]
    weights += [packed.taps, *(layer.weight for layer in (*packed.hidden, *packed.output))]
    for block in packed.blocks:
        weights += [block.vertical.weight, block.link.weight, *block.centre]
        weights += [layer.weight for layer in block.mix]
    return 2 * pixels * sum(weight.numel() for weight in weights)


def peak(size: int = 1024) -> float:
    """Floating-point operations a second of a large fp32 matrix product: the best of several."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: a @ b, 8))


def measure(model: prsr.PRSR, batch: int, runs: int, table: Table, rate: float) -> None:
    """Add one row a sampler to the table."""
    config = model.config
    lr = torch.randint(
        0, config.levels, (batch, config.channels, config.low_height, config.low_width)
    )
    lr = lr.to(torch.uint8)
    height, width = config.scale * config.low_height, config.scale * config.low_width
    bound = needed_flops(pack_prior(model.prior), height * width) / rate * 1e3

    hr = torch.zeros(batch, config.channels, height, width, dtype=torch.uint8)
    with torch.no_grad():
        forward = statistics.median(seconds(lambda: model.prior(hr), 3))
    naive = forward * height * width * config.channels / batch * 1e3

    for engine in ENGINES:
        if engine.name == "reference" or engine.reasons(config, torch.device("cpu"), "fp32"):
            continue
        sampler = prsr.Sampler(model, engine=engine.name)
        draw = partial(sampler.sample, lr, seed=0)
        times = [t / batch * 1e3 for t in seconds(draw, runs)]
        median = statistics.median(times)
        table.add_row(
            str(batch),
            engine.name,
            f"{median:,.0f} ({min(times):,.0f}–{max(times):,.0f})",
            f"{bound:,.0f}",
            f"{median / bound:,.1f}×",
            f"{naive:,.0f}",
            f"{naive / median:,.0f}×",
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="paper", choices=list(prsr.PRESETS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()

    torch.manual_seed(0)
    model = prsr.PRSR(prsr.PRSRConfig.preset(options.preset)).eval()
    rate = peak()
    console = Console(width=110)
    console.print(
        f"preset {options.preset}, {platform.machine()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, fp32 matrix product {rate / 1e9:,.0f} GFLOP/s"
    )
    table = Table(title="milliseconds a picture: median (fastest–slowest)")
    for heading in ("batch", "engine", "measured", "bound", "of it", "naive", "faster by"):
        table.add_column(heading, justify="right")
    for batch in options.batches:
        measure(model, batch, options.runs, table, rate)
    console.print(table)


if __name__ == "__main__":
    main()
