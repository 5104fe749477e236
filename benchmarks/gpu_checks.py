"""Checks of an engine on the GPU of this machine; all are run, even if some fail.

SPEC's test for several batch sizes in every precision of the engine, and on a trained model; then
equality between repeated runs, batch sizes and the engine ``cpu``, unusual configurations, and
``compute-sanitizer`` if it is installed.
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
from prsr.engines.base import Job
from prsr.engines.registry import choose
from prsr.models.model_files import bundled_inputs
from prsr.testing import cdf_violation, divergence_distance, with_rounded_operands

BF16_EPSILON = 0.02
"""How far u may lie outside its CDF interval of the model with the engine's rounding. Sums in
another order occasionally round to the next bfloat16, which moves the CDF slightly."""

FP16_EPSILON = 0.01
"""The same in fp16, whose spacing is eight times finer; the tanh of the engine ``cuda`` has a
relative error of up to 2⁻¹¹."""

MAX_DIFFERENT = 0.03
"""The share of images of two engines that may differ; SPEC, section 2."""

BIT_IDENTICAL = ("cuda",)
"""Engines whose images have the same bits in any batch and at any place in it, given the same
results of the conditioning network. On a GPU these may differ between batches."""

TRAINED = {1.0: 2e-5, 0.3: 6e-5}
"""Temperatures at which a trained model is sampled in fp32, and the CDF violation that was computed
for fp32 as two fp16 numbers without a GPU. A GPU may exceed it, up to :data:`EPSILON`."""

CHECKED = 128  # images per slice, whose logits fit in memory

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
"""Two configurations that are not multiples of the tiles, the first with conditional gates, the
second with more features than fit in registers. The third has the tiles and conditional gates of
``paper-conditional``."""

TRUTHS: dict[str, tuple[Callable[[prsr.PRSR], prsr.PRSR], float]] = {
    "fp32": (lambda model: model, EPSILON),
    "fp16": (partial(with_rounded_operands, operand=torch.float16), FP16_EPSILON),
    "bf16": (with_rounded_operands, BF16_EPSILON),
}
"""By precision: the model with the engine's rounding, and how far u may be outside its interval."""


@dataclass
class Checks:
    """The results of the checks of an engine.

    Attributes:
        engine: its name.
        precision: the only one to check; None for all.
        outcomes: description of each check, and whether it passed.
    """

    engine: str
    precision: str | None = None
    outcomes: list[tuple[str, bool]] = field(default_factory=list)

    def require(self, passed: bool, what: str) -> None:
        """Record and print whether a check passed."""
        self.outcomes.append((what, passed))
        print(f"{'passed' if passed else 'FAILED'}: {what}", flush=True)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Print an exception raised inside and record it as a failed check."""
        try:
            yield
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            description = str(error).partition("\n")[0]
            self.require(False, f"{what}: {type(error).__name__}: {description}")

    def failures(self) -> int:
        """The number of failed checks."""
        return sum(not passed for _, passed in self.outcomes)


def violation(model: prsr.PRSR, call: dict[str, Tensor], image: Tensor) -> float:
    """The largest violation in SPEC's test; ``call`` has lr, noise, temperature and a mask."""
    parts = (tensor.split(CHECKED) for tensor in (call["lr"], image, *list(call.values())[1:]))
    worst = torch.cat([cdf_violation(model, *part) for part in zip(*parts, strict=True)])
    return float(worst.max())  # NaN if one is NaN, unlike Python's max


def check_correctness(bench: Bench, checks: Checks, batches: list[int]) -> None:
    """SPEC's test, and equality between runs, batch sizes and engines."""
    few, more = batches[1:3]
    checked = precisions(bench, checks)
    for precision in checked:
        with checks.attempt(precision):
            check_precision(bench, checks, precision, batches)
            if checks.engine in BIT_IDENTICAL:
                check_places(bench, checks, precision, few, more)
    if "fp32" not in checked:
        return
    if not bench.dry_run:
        check_trained(bench, checks)

    def sample_images(count: int) -> Tensor:
        lr = bench.images(count)
        return prsr.sample(lr, model=bench.model, seed=0, engine=checks.engine)

    with checks.attempt(f"those in a batch of {few}"):
        ours, theirs = sample_images(more), sample_images(few)
        require_equal_images(bench, checks, ours, theirs, f"those in a batch of {few}")
    with checks.attempt("the engine cpu's"):
        on_cpu = copy.deepcopy(bench.model).cpu()
        theirs = prsr.sample(bench.images(more).cpu(), model=on_cpu, seed=0, engine="cpu")
        ours = sample_images(more)
        require_equal_images(bench, checks, ours, theirs.to(bench.device), "the engine cpu's")


def check_precision(bench: Bench, checks: Checks, precision: str, batches: list[int]) -> None:
    """SPEC's test for every batch size, and equality of repeated runs."""
    make_truth, limit = TRUTHS[precision]
    truth = make_truth(bench.model)
    sampler = prsr.Sampler(bench.model, engine=checks.engine, precision=precision)
    for batch in batches:
        with checks.attempt(f"{precision}, batch {batch}"):
            image = sampler.sample(bench.images(batch), seed=0)
            worst = violation(truth, sampling_inputs(bench, batch), image)
            checks.require(worst <= limit, f"{precision}, batch {batch}: CDF violation {worst:.2g}")
    few, runs = batches[1], 2 if bench.quick else 20
    description = f"{precision}: {runs} more runs sample the same {few} images"
    with checks.attempt(description):
        first, *others = (sampler.sample(bench.images(few), seed=0) for _ in range(1 + runs))
        checks.require(all(torch.equal(other, first) for other in others), description)


def check_places(bench: Bench, checks: Checks, precision: str, few: int, more: int) -> None:
    """Bit-identity of images in a large batch and, at other places, in a small one."""
    prior, height = bench.model.prior, bench.size[0]
    engine = choose(checks.engine, bench.config, bench.device, precision, prior)
    packed, large = engine.pack(prior, precision), bench.job(more)
    last = slice(more - few, more)
    small = Job(
        large.logits[last],
        large.features[last],
        large.noise[last],
        large.temperature[last],
        None,
        torch.zeros_like(large.image[last]),
    )
    for job in large, small:
        engine.rows(engine.start(packed, job), 0, height)
    description = (
        f"{precision}: the last {few} of {more} images have the same bits in a batch alone"
    )
    checks.require(torch.equal(large.image[last], small.image), description)


def check_trained(bench: Bench, checks: Checks) -> None:
    """SPEC's test of the bundled cartoon faces in fp32."""
    for temperature, computed in TRAINED.items():
        what = f"faces at temperature {temperature}"
        with checks.attempt(what):
            model = prsr.PRSR.from_pretrained("faces").eval().to(bench.device)
            lr = bundled_inputs("faces").to(bench.device)
            height, width = (model.config.scale * side for side in lr.shape[2:])
            noise = prsr.noise(0, len(lr), height, width, model.config.channels).to(bench.device)
            image = prsr.sample(lr, temperature, model=model, seed=0, engine=checks.engine)
            worst = float(cdf_violation(model, lr, image, noise, temperature).max())
            description = f"{what}: CDF violation {worst:.2g}, computed {computed:.0e}"
            checks.require(worst <= EPSILON, description)


def precisions(bench: Bench, checks: Checks) -> list[str]:
    """The precisions to check: those that the engine supports here."""
    return [
        precision
        for precision in TRUTHS
        if checks.precision in (None, precision)
        and not prsr.list_engines(bench.config, bench.device, precision)[checks.engine]
    ]


def require_equal_images(
    bench: Bench, checks: Checks, ours: Tensor, theirs: Tensor, whose: str
) -> None:
    """Require equal images, except for a few that differ where u is at an edge of its interval."""
    apart, equal = agreement(bench, ours[: len(theirs)], theirs)
    description = (
        f"{equal:.1%} of {len(theirs)} images equal {whose}; in the others, u is within "
        f"{apart:.2g} of an edge"
    )
    checks.require(apart <= EPSILON and equal > 1 - MAX_DIFFERENT, description)


def agreement(bench: Bench, one: Tensor, other: Tensor) -> tuple[float, float]:
    """The largest distance of u from an edge where images differ, and the share of equal images."""
    lr, noise = bench.images(len(one)), bench.noise(len(one))
    parts = zip(*(tensor.split(CHECKED) for tensor in (lr, one, other, noise)), strict=True)
    apart = torch.cat([divergence_distance(bench.model, *part) for part in parts])
    return float(apart.max()), float((one == other).flatten(1).all(1).float().mean())


def sampling_inputs(bench: Bench, batch: int) -> dict[str, Tensor]:
    """The arguments of :func:`violation` for the usual images."""
    shape = (batch, bench.config.channels, *bench.size)
    return {
        "lr": bench.images(batch),
        "noise": bench.noise(batch),
        "temperature": torch.ones(batch, device=bench.device),
        "mask": torch.zeros(shape, dtype=torch.bool, device=bench.device),
    }


def check_odd_configurations(bench: Bench, checks: Checks) -> None:
    """SPEC's test on unusual configurations."""
    for config in ODD[:1] if bench.dry_run else ODD:
        for batch in (3,) if bench.dry_run else (3, 257):
            what = f"D={config.channels}, K={config.levels}, C={config.prior_channels}"
            what = f"{what}, batch {batch}"
            with checks.attempt(what):
                odd = Bench(config, bench.device, bench.quick, bench.report)
                check_odd_configuration(odd, checks, batch, what)


def check_odd_configuration(odd: Bench, checks: Checks, batch: int, what: str) -> None:
    """SPEC's test in every precision."""
    for precision in precisions(odd, checks):
        if precision == "fp32":
            check_known_sub_pixels(odd, checks, batch, what)
            continue
        # At temperature 1, because near 0 rounding errors decide which level is drawn.
        call = sampling_inputs(odd, batch)
        sampler = prsr.Sampler(odd.model, engine=checks.engine, precision=precision)
        make_truth, limit = TRUTHS[precision]
        worst = violation(make_truth(odd.model), call, sampler.sample(call["lr"], seed=0))
        checks.require(worst <= limit, f"{what}, {precision}: CDF violation {worst:.2g}")


def check_known_sub_pixels(odd: Bench, checks: Checks, batch: int, what: str) -> None:
    """SPEC's test with known sub-pixels and several temperatures."""
    call = sampling_inputs(odd, batch)
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
    checks.require(kept, f"{what}: known sub-pixels are kept")


def compute_sanitizer() -> str | None:
    """The path of ``compute-sanitizer``; None if it is not installed."""
    names = "compute-sanitizer", "/usr/local/cuda/bin/compute-sanitizer"
    return next((found for name in names if (found := shutil.which(name))), None)


def run_compute_sanitizer(tool: str, bench: Bench, checks: Checks) -> None:
    """Run ``compute-sanitizer`` on a tiny model in each precision."""
    for precision in precisions(bench, checks):
        sanitize(tool, checks, precision)


def sanitize(tool: str, checks: Checks, precision: str) -> None:
    """Search for invalid accesses and races in one precision."""
    code = (
        "import dataclasses, torch, prsr;"
        # Enough levels for a cluster of the engine cuda.
        "config = dataclasses.replace(prsr.PRSRConfig.preset('tiny'), levels=64);"
        "m = prsr.PRSR(config).cuda();"
        "lr = torch.zeros(3, 3, 2, 2, dtype=torch.uint8, device='cuda');"
        f"prsr.sample(lr, model=m, seed=0, engine={checks.engine!r}, precision={precision!r})"
    )
    # A separate allocation per tensor, so that reads out of bounds do not hit torch's memory pool.
    alone = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    # torch queries driver functions that may not exist; do not report these as errors.
    for check, more in (("memcheck", ["--report-api-errors", "no"]), ("racecheck", [])):
        command = [tool, "--tool", check, *more, "--error-exitcode", "9"]
        what = f"compute-sanitizer, {check}, {precision}"
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
            checks.require(False, f"{what}: did not end within 45 s")
            continue
        checks.require(run.returncode == 0, f"{what}: {run.stdout[-200:].strip()!r}")
