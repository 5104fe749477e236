"""``python -m benchmarks.training``: training speed in images per second, against plain PyTorch.

Plain: the same model with contiguous memory, a dense head and PyTorch functions for the loss, in a
default process. Fast: a step of :class:`prsr.training.trainer.Trainer` in the environment of
:mod:`prsr.training_environment`, on several cores both in one process and in several that share
each batch, as under ``torchrun``. Each has its own processes, which wait while others compute.
The bound is the time of the GEMMs and convolutions of an image, counted by
:class:`torch.utils.flop_counter.FlopCounterMode`, at the rate of a large bf16 GEMM in the same
run.

``--busy`` measures the slowdown by processes that compute without pause on every core.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine
from benchmarks.contention import busy_processes
from benchmarks.report import Column, Record, Report, times
from prsr import PRESETS, PRSR, PRSRConfig
from prsr.testing import plain_loss
from prsr.training.settings import TrainSettings
from prsr.training.trainer import Trainer
from prsr.training_environment import MALLOC, training_environment, usable_cores
from prsr.utils import distributed

VARIABLES = (*MALLOC, "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")

PATHS = ("plain", "fast")


class Way(NamedTuple):
    """A way to train: "plain" or "fast", in some processes with some threads each."""

    path: str
    processes: int
    threads: int


def ways(cores: int) -> list[Way]:
    """The ways to train on a number of cores that are compared."""
    in_one_process = [Way(path, 1, cores) for path in PATHS]
    return in_one_process + ([Way("fast", cores, 1)] if cores > 1 else [])


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
    """Processes that share a training, which steps on request.

    Args:
        way: how to train.
        preset: of the model.
        batch: images per step over all processes.
    """

    def __init__(self, way: Way, preset: str, batch: int) -> None:
        environment = {name: v for name, v in os.environ.items() if name not in VARIABLES}
        environment["OMP_NUM_THREADS"] = str(way.threads)
        if way.path == "fast":
            environment |= training_environment(environment)
        if way.processes > 1:
            environment |= {"WORLD_SIZE": str(way.processes), "MASTER_ADDR": "localhost"}
            environment["MASTER_PORT"] = str(free_port())
        command = [sys.executable, "-m", "benchmarks.training", "--worker", way.path]
        command += ["--preset", preset, "--batches", str(batch // way.processes)]
        self.processes = [
            subprocess.Popen(
                command,
                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(way.processes)
        ]
        self.step()  # a warm-up, which allocates memory

    def step(self) -> tuple[float, float]:
        """Run a step; returns seconds of wall-clock time and of processor time."""
        for process in self.processes:
            print(file=process.stdin, flush=True)
        wall, cpu = zip(*map(read_times, self.processes), strict=True)
        return max(wall), sum(cpu)

    def end(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.communicate()


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port: int = listener.getsockname()[1]
        return port


def read_times(process: subprocess.Popen[str]) -> tuple[float, float]:
    """The times of a step that a process prints: wall-clock and processor time in seconds."""
    if process.stdout is None:
        raise RuntimeError("the worker has no output")
    wall, cpu = map(float, process.stdout.readline().split())
    return wall, cpu


def work(path: str, preset: str, batch: int) -> None:
    """The main function of a worker: a step for each line of its input."""
    distributed.join()
    trainer = make_trainer(path, preset, batch)
    lr, hr = random_batch(trainer.settings.config, batch)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        trainer.train_step(lr, hr)
        print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)
    distributed.leave()


def compare(report: Report, options: argparse.Namespace, batch: int) -> None:
    """Print a table of all ways to train; check the target on two cores."""
    other_work = machine.OtherWork()
    workers = {
        way: Worker(way, options.preset, batch) for cores in options.cores for way in ways(cores)
    }
    steps = {way: [] for way in workers}  # type: dict[Way, list[tuple[float, float]]]
    for _ in range(options.runs):
        for way, worker in workers.items():
            steps[way].append(worker.step())
    for worker in workers.values():
        worker.end()
    others = other_work.share()
    bound = 1000 * operations(options.preset) / matmul_rate()
    records: list[Record] = []
    speeds: dict[Way, float] = {}
    for way, times_of_steps in steps.items():
        wall, cpu = (statistics.median(column) for column in zip(*times_of_steps, strict=True))
        speeds[way] = batch / wall
        plain = speeds[Way("plain", 1, way.processes * way.threads)]
        records.append(
            {
                **way._asdict(),
                "images/s": speeds[way],
                "over plain": speeds[way] / plain,
                "processor ms": 1000 * cpu / batch,
                "bound ms": bound,
                "over bound": 1000 * cpu / batch / bound,
            }
        )
    report.table(
        f"batch {batch}",
        f"training: {options.preset}, bf16, batch {batch}",
        [
            *(Column(name, name) for name in Way._fields),
            Column("images/s", "images/s", "{:.2f}".format),
            Column("over plain", "over plain on these cores", times),
            Column("processor ms", "processor ms per image", "{:.1f}".format),
            Column("bound ms", "bound", "{:.1f}".format),
            Column("over bound", "over bound", "{:.2f}".format),
        ],
        records,
        f"Others took {others:.0%} of the cores.",
    )
    if 2 in options.cores:
        plain, *fast = (speeds[way] for way in ways(2))
        report.target(f"fast over plain, batch {batch}, two cores", max(fast) / plain, least=FASTER)


def busy(report: Report, options: argparse.Namespace, batch: int) -> None:
    """Measure the slowdown of a step by as many busy processes as cores."""
    cores = usable_cores()
    records: list[Record] = []
    for path in reversed(PATHS):
        worker = Worker(Way(path, 1, cores), options.preset, batch)
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
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="measured steps of each")
    parser.add_argument("--busy", action="store_true", help="measure with busy processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    parser.add_argument("--worker", choices=PATHS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options.worker, options.preset, options.batches[0])
        return
    report = Report(options.json)
    report.print_facts("machine", machine.describe())
    if options.busy:
        busy(report, options, options.batches[0])
    else:
        for batch in options.batches:
            compare(report, options, batch)
    report.write()


if __name__ == "__main__":
    main()
