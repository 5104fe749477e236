"""Whether an engine is right on the GPU that is here: checks that are all tried, whatever fails.

First SPEC's test at several batches and in every precision of the engine, then repeated runs, the
same images in another batch and by the engine ``cpu``, odd configurations, and
``compute-sanitizer`` where it is installed.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

import prsr
from benchmarks.gpu_bench import Bench
from benchmarks.subject import EPSILON
from prsr.testing import cdf_violation, divergence_distance, with_rounded_operands

BF16_EPSILON = 0.02
"""How far u may lie outside the CDF of the model whose products round as the engine's: a sum in
another order rounds now and then to the next bfloat16, and moves that CDF by a little."""

FP16_EPSILON = 0.01
"""The same in fp16, whose numbers are eight times as close; the engine ``cuda`` takes a tanh that
is off by up to 2⁻¹¹ of it."""

PARTED = 0.03
"""Of the images of two engines, fewer than these may differ: SPEC, section 2."""

CHECKED = 128  # images whose logits fit in memory at a time

ODD = (
    prsr.PRSRConfig(
        levels=7, scale=2, low_height=3, low_width=4, conditioning_channels=5,
        conditioning_blocks=1, prior_channels=10, prior_layers=2, prior_kernel=3, first_kernel=5,
        head_channels=70, conditional_gates=True,
    ),
    prsr.PRSRConfig(
        channels=1, levels=2, scale=2, low_height=3, low_width=3, conditioning_blocks=1,
        prior_channels=100, prior_layers=3, prior_kernel=1, first_kernel=3, head_channels=33,
    ),
    prsr.PRSRConfig(
        scale=2, low_height=4, low_width=4, conditioning_blocks=1, prior_layers=3,
        head_channels=96, conditional_gates=True,
    ),
)  # fmt: skip
"""Two configurations that fit no tile, the first with conditional gates; registers do not hold the
features of the second. The third has the tiles and conditional gates of ``paper-conditional``."""

TRUTHS: dict[str, tuple[Callable[[prsr.PRSR], prsr.PRSR], float]] = {
    "fp32": (lambda model: model, EPSILON),
    "fp16": (partial(with_rounded_operands, operand=torch.float16), FP16_EPSILON),
    "bf16": (with_rounded_operands, BF16_EPSILON),
}
"""By precision: the model whose distributions are drawn from, and how far u may be outside."""


@dataclass
class Checks:
    """What was checked on one engine; a failure is noted, and the checks after it still run.

    Attributes:
        engine: its name, as ``engine=`` takes it.
        outcomes: each check, and whether it holds.
    """

    engine: str
    outcomes: list[tuple[str, bool]] = field(default_factory=list)

    def require(self, passed: bool, what: str) -> None:
        """Note and print whether it holds."""
        self.outcomes.append((what, passed))
        print(f"{'holds' if passed else 'FAILS'}: {what}", flush=True)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """An error inside is printed and noted as a check that fails."""
        try:
            yield
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            told = str(error).partition("\n")[0]
            self.require(False, f"{what}: {type(error).__name__}: {told}")

    def failures(self) -> int:
        """How many do not hold."""
        return sum(not passed for _, passed in self.outcomes)


def violation(model: prsr.PRSR, call: dict[str, Tensor], image: Tensor) -> float:
    """The worst of SPEC's test, in slices; ``call`` has lr, noise, temperature and a mask."""
    parts = (tensor.split(CHECKED) for tensor in (call["lr"], image, *list(call.values())[1:]))
    worst = torch.cat([cdf_violation(model, *part) for part in zip(*parts, strict=True)])
    return float(worst.max())  # NaN if one is, which Python's max would lose


def correct(bench: Bench, checks: Checks, batches: list[int]) -> None:
    """SPEC's test, and equality between runs, batches and engines."""
    few, more = batches[1:3]
    for precision in precisions(bench, checks.engine):
        with checks.attempt(precision):
            in_precision(bench, checks, precision, batches)

    def drawn(count: int) -> Tensor:
        lr = bench.images(count)
        return prsr.sample(lr, model=bench.model, seed=0, engine=checks.engine)

    with checks.attempt(f"those in a batch of {few}"):
        alike(bench, checks, drawn(more), drawn(few), f"those in a batch of {few}")
    with checks.attempt("the engine cpu's"):
        on_cpu = copy.deepcopy(bench.model).cpu()
        theirs = prsr.sample(bench.images(more).cpu(), model=on_cpu, seed=0, engine="cpu")
        alike(bench, checks, drawn(more), theirs.to(bench.device), "the engine cpu's")


def in_precision(bench: Bench, checks: Checks, precision: str, batches: list[int]) -> None:
    """SPEC's test in every batch, and repeated runs."""
    make_truth, limit = TRUTHS[precision]
    truth = make_truth(bench.model)
    sampler = prsr.Sampler(bench.model, engine=checks.engine, precision=precision)
    for batch in batches:
        with checks.attempt(f"{precision}, batch {batch}"):
            image = sampler.sample(bench.images(batch), seed=0)
            worst = violation(truth, plain(bench, batch), image)
            checks.require(worst <= limit, f"{precision}, batch {batch}: CDF violation {worst:.2g}")
    few, runs = batches[1], 2 if bench.quick else 20
    told = f"{precision}: {runs} more runs draw the same {few} images"
    with checks.attempt(told):
        first, *others = (sampler.sample(bench.images(few), seed=0) for _ in range(1 + runs))
        checks.require(all(torch.equal(other, first) for other in others), told)


def precisions(bench: Bench, engine: str) -> list[str]:
    """Those in which an engine can serve."""
    return [p for p in TRUTHS if not prsr.list_engines(bench.config, bench.device, p)[engine]]


def alike(bench: Bench, checks: Checks, ours: Tensor, theirs: Tensor, whose: str) -> None:
    """The images are equal but for a few, which part where u is at an edge of the CDF."""
    apart, equal = agreement(bench, ours[: len(theirs)], theirs)
    told = f"{equal:.1%} of {len(theirs)} images equal {whose}, u within {apart:.2g} of others"
    checks.require(apart <= EPSILON and equal > 1 - PARTED, told)


def agreement(bench: Bench, one: Tensor, other: Tensor) -> tuple[float, float]:
    """How far u was from an edge where images part, at the worst, and how many are equal."""
    lr, noise = bench.images(len(one)), bench.noise(len(one))
    parts = zip(*(tensor.split(CHECKED) for tensor in (lr, one, other, noise)), strict=True)
    apart = torch.cat([divergence_distance(bench.model, *part) for part in parts])
    return float(apart.max()), float((one == other).flatten(1).all(1).float().mean())


def plain(bench: Bench, batch: int) -> dict[str, Tensor]:
    """What :func:`violation` asks of the usual images."""
    shape = (batch, bench.config.channels, *bench.size)
    return {
        "lr": bench.images(batch),
        "noise": bench.noise(batch),
        "temperature": torch.ones(batch, device=bench.device),
        "mask": torch.zeros(shape, dtype=torch.bool, device=bench.device),
    }


def odd_ones(bench: Bench, checks: Checks) -> None:
    """SPEC's test on other configurations: with known sub-pixels and temperatures, and in bf16."""
    for config in ODD[:1] if bench.rehearsal else ODD:
        for batch in (3,) if bench.rehearsal else (3, 257):
            what = f"D={config.channels}, K={config.levels}, C={config.prior_channels}"
            what = f"{what}, batch {batch}"
            with checks.attempt(what):
                odd = Bench(config, bench.device, bench.quick, bench.report)
                odd_one(odd, checks, batch, what)


def odd_one(odd: Bench, checks: Checks, batch: int, what: str) -> None:
    """One of them."""
    call = plain(odd, batch)
    call["temperature"] = torch.linspace(0, 1.5, batch, device=odd.device)
    known = torch.randint_like(call["mask"], odd.config.levels, dtype=torch.uint8)
    call["mask"] = torch.rand(known.shape, device=odd.device) < 0.3
    image = prsr.sample(
        call["lr"],
        call["temperature"],
        model=odd.model,
        seed=0,
        engine=checks.engine,
        known=known,
        mask=call["mask"],
    )
    worst = violation(odd.model, call, image)
    checks.require(worst <= EPSILON, f"{what}: CDF violation {worst:.2g}")
    kept = torch.equal(image[call["mask"]], known[call["mask"]])
    checks.require(kept, f"{what}: known sub-pixels stay")
    if "bf16" not in precisions(odd, checks.engine):
        return
    # At temperature 1: near 0 the rounding of a sum decides which level is drawn.
    call = plain(odd, batch)
    image = prsr.sample(call["lr"], model=odd.model, seed=0, engine=checks.engine, precision="bf16")
    worst = violation(with_rounded_operands(odd.model), call, image)
    checks.require(worst <= BF16_EPSILON, f"{what}, bf16: CDF violation {worst:.2g}")


def sanitized(checks: Checks) -> None:
    """``compute-sanitizer`` on a tiny model, where it is installed."""
    tool = shutil.which("compute-sanitizer") or shutil.which(
        "/usr/local/cuda/bin/compute-sanitizer"
    )
    if tool is None:
        print("not here: compute-sanitizer")
        return
    code = (
        "import dataclasses, torch, prsr;"
        # With levels enough for a cluster of the engine cuda.
        "config = dataclasses.replace(prsr.PRSRConfig.preset('tiny'), levels=64);"
        "m = prsr.PRSR(config).cuda();"
        "lr = torch.zeros(3, 3, 2, 2, dtype=torch.uint8, device='cuda');"
        f"prsr.sample(lr, model=m, seed=0, engine={checks.engine!r})"
    )
    # A block of memory for each tensor: a read beyond one would else end in torch's own pool.
    alone = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    # torch asks the driver for functions that it may not have: such answers are no errors here.
    for check, more in (("memcheck", ["--report-api-errors", "no"]), ("racecheck", [])):
        command = [tool, "--tool", check, *more, "--error-exitcode", "9"]
        try:
            run = subprocess.run(
                [*command, sys.executable, "-c", code],
                capture_output=True,
                text=True,
                check=False,
                timeout=45,
                env=alone,
            )
        except subprocess.TimeoutExpired:
            print(f"not known: compute-sanitizer, {check}, did not end in 45 s", flush=True)
            continue
        checks.require(
            run.returncode == 0, f"compute-sanitizer, {check}: {run.stdout[-200:].strip()!r}"
        )
