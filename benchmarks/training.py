"""``python -m benchmarks.training``: training speed in images per second, against plain PyTorch.

Plain: the same model with contiguous memory, a dense head and PyTorch functions for the loss, in a
default process. Fast: a step of :class:`prsr.training.trainer.Trainer` in the environment of
:mod:`prsr.training_environment`. Each has its own process, which waits while the other computes.
The bound is the time of the GEMMs and convolutions of an image, counted by
:class:`torch.utils.flop_counter.FlopCounterMode`, at the rate of a large bf16 GEMM in the same
run.

``--busy`` measures the slowdown by processes that compute without pause on every core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine
from benchmarks.contention import busy_processes
from benchmarks.report import Column, Record, Report
from prsr import PRESETS, PRSR, PRSRConfig
from prsr.testing import plain_loss
from prsr.training.settings import TrainSettings
from prsr.training.trainer import Trainer
from prsr.training_environment import MALLOC, training_environment, usable_cores

VARIABLES = (*MALLOC, "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")

PATHS = ("plain", "fast")

FASTER = 3.0
"""The least speedup of the fast path on two cores."""

SLOWER = 3.0
"""The largest slowdown of a step on a busy machine."""


class PlainTrainer(Trainer):
    """The same training in plain PyTorch."""

    def __init__(self, settings: TrainSettings) -> None:
        super().__init__(settings, "random", torch.device("cpu"))
        self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # not in stubs
        self.loss = lambda lr, hr: plain_loss(cast(PRSR, self.model), lr, hr)


def make_trainer(path: str, preset: str, batch: int) -> Trainer:
    """A trainer for random images in mixed precision."""
    settings = TrainSettings(PRSRConfig.preset(preset), batch_size=batch, precision="bf16")
    if path == "plain":
        return PlainTrainer(settings)
    return Trainer(settings, "random", torch.device("cpu"))


def random_batch(config: PRSRConfig, batch: int) -> tuple[Tensor, Tensor]:
    """Random low- and high-resolution images."""
    size = config.low_height, config.low_width
    shapes = [
        (batch, config.channels, *(times * side for side in size)) for times in (1, config.scale)
    ]
    lr, hr = (torch.randint(config.levels, shape, dtype=torch.uint8) for shape in shapes)
    return lr, hr


def operations(preset: str) -> float:
    """Floating-point operations per image of a training step on the fast path."""
    trainer = make_trainer("fast", preset, 1)
    with FlopCounterMode(display=False) as counter:
        trainer.train_step(*random_batch(trainer.settings.config, 1))
    return counter.get_total_flops()


def matmul_rate() -> float:
    """Operations per second of processor time of a large bf16 GEMM on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    a = torch.randn(2048, 2048).bfloat16()
    seconds = []
    for _ in range(10):
        start = time.process_time()
        a @ a
        seconds.append(time.process_time() - start)
    torch.set_num_threads(before)
    return 2 * 2048**3 / min(seconds)


class Worker:
    """A process that trains on request.

    Args:
        path: "plain" or "fast".
        preset: of the model.
        batch: images per step.
        threads: of torch.
    """

    def __init__(self, path: str, preset: str, batch: int, threads: int) -> None:
        environment = {name: v for name, v in os.environ.items() if name not in VARIABLES}
        environment["OMP_NUM_THREADS"] = str(threads)
        if path == "fast":
            environment |= training_environment(environment)
        command = [sys.executable, "-m", "benchmarks.training", "--worker", path]
        command += ["--preset", preset, "--batches", str(batch)]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.step()  # a warm-up, which allocates memory

    def step(self) -> tuple[float, float]:
        """Run a step; returns seconds of wall-clock time and of processor time."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        print(file=self.process.stdin, flush=True)
        wall, cpu = map(float, self.process.stdout.readline().split())
        return wall, cpu

    def end(self) -> None:
        """End the process."""
        self.process.communicate()


def work(path: str, preset: str, batch: int) -> None:
    """The main function of a worker: a step for each line of its input."""
    trainer = make_trainer(path, preset, batch)
    lr, hr = random_batch(trainer.settings.config, batch)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        trainer.train_step(lr, hr)
        print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)


def compare(report: Report, options: argparse.Namespace, threads: int, batch: int) -> None:
    """Print a table of both paths; check its target on two cores."""
    workers = {path: Worker(path, options.preset, batch, threads) for path in PATHS}
    other_work = machine.OtherWork()
    steps = {path: [] for path in PATHS}  # type: dict[str, list[tuple[float, float]]]
    for _ in range(options.runs):
        for path, worker in workers.items():
            steps[path].append(worker.step())
    bound = 1000 * operations(options.preset) / matmul_rate()
    records: list[Record] = []
    for path, worker in workers.items():
        worker.end()
        wall, cpu = (statistics.median(column) for column in zip(*steps[path], strict=True))
        records.append(
            {
                "path": path,
                "images/s": batch / wall,
                "processor ms": 1000 * cpu / batch,
                "bound ms": bound,
                "over bound": 1000 * cpu / batch / bound,
            }
        )
    faster, cheaper = (
        records[1]["images/s"] / records[0]["images/s"],
        records[0]["processor ms"] / records[1]["processor ms"],
    )
    report.table(
        f"batch {batch}, threads {threads}",
        f"training: {options.preset}, bf16, batch {batch}, {threads} threads",
        [
            Column("path", ""),
            Column("images/s", "images/s", "{:.2f}".format),
            Column("processor ms", "processor ms per image", "{:.1f}".format),
            Column("bound ms", "bound", "{:.1f}".format),
            Column("over bound", "over bound", "{:.2f}".format),
        ],
        records,
        f"Fast over plain: {faster:.2f} times the images per second, {cheaper:.2f} times less "
        f"processor time. "
        f"Others took {other_work.share():.0%} of the cores, the waiting workers included.",
    )
    if threads == 2:
        report.target(f"fast over plain, batch {batch}, two cores", faster, least=FASTER)


def busy(report: Report, options: argparse.Namespace, batch: int) -> None:
    """Measure the slowdown of a step by as many busy processes as cores."""
    cores = usable_cores()
    records: list[Record] = []
    for path in reversed(PATHS):
        worker = Worker(path, options.preset, batch, cores)
        quiet = statistics.median(worker.step()[0] for _ in range(options.runs))
        with busy_processes(cores):
            beside = statistics.median(worker.step()[0] for _ in range(options.runs))
        worker.end()
        records.append({"path": path, "quiet": quiet, "busy": beside, "ratio": beside / quiet})
    report.table(
        "busy",
        f"seconds per step: {options.preset}, batch {batch}, {cores} threads and busy processes",
        [
            Column("path", ""),
            *(Column(name, name, "{:.2f}".format) for name in ("quiet", "busy", "ratio")),
        ],
        records,
    )
    report.target("busy machine: a step over its quiet time", records[0]["ratio"], most=SLOWER)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="paper-conditional", choices=list(PRESETS))
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 32], metavar="N")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="measured steps of each")
    parser.add_argument("--busy", action="store_true", help="measure with busy processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    parser.add_argument("--worker", choices=PATHS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options.worker, options.preset, options.batches[0])
        return
    report = Report()
    report.print_facts("machine", machine.describe())
    if options.busy:
        busy(report, options, options.batches[0])
    else:
        for batch in options.batches:
            for threads in options.threads:
                compare(report, options, threads, batch)
    if options.json:
        report.write(options.json)


if __name__ == "__main__":
    main()
