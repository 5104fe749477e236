"""Train on one packed data set for a given time: a stage of ``make gpu-all``.

    python -m benchmarks.gpu_training portraits --data data/packed --work runs/here --seconds 300

It unpacks ``portraits-train.zip`` and ``portraits-validation.zip``, measures the time per step, and
chooses the number of steps that fit in the time, because the learning rate must reach zero at the
end of a run. The run is ``runs/here/portraits``, with a checkpoint about every minute. An existing
run is resumed within its schedule. If its schedule has ended or it has no checkpoint, a new
schedule starts from its model.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.stages import run

RECIPE = (
    *("--optimizer", "adamw", "--learning-rate", "1.5e-3", "--warmup", "300"),
    *("--schedule", "linear", "--ema", "0.999", "--clip", "1", "--augment"),
)
"""Options of ``prsr train``, untested on a GPU."""

PROBE = 150
"""Steps of the measurement, with a report after half of them and at the end. The time per step is
that of the last sixth: on a GPU, ``prsr train`` writes scalars at a report and 50 steps later."""

DRY_RUN = 12
"""Steps of the measurement, and the largest number of training steps, in a dry run on a CPU."""

BETWEEN = 60
"""Seconds between checkpoints."""

SAFETY = 0.95
"""The share of the time to plan for."""


@dataclass(frozen=True)
class Pace:
    """The durations of the parts of a training in seconds.

    Attributes:
        start: one-time work: loading, compiling, and the extra time of the first report.
        step: a step.
        report: a validation, a sample sheet and a checkpoint.
        options: of ``prsr train`` for these durations, in addition to the recipe.
    """

    start: float
    step: float
    report: float
    options: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The steps to train on this machine.

    Attributes:
        last: last step on this machine.
        steps: last step of the schedule.
        report_every: steps between checkpoints.
    """

    last: int
    steps: int
    report_every: int


def make_plan(
    pace: Pace, seconds: float, done: int, total: int | None, machines: float, most: float
) -> Plan:
    """Choose how many steps to train.

    Args:
        pace: of this machine.
        seconds: remaining time.
        done: steps of the run so far.
        total: last step of its schedule; None to choose a new schedule.
        machines: number of machines that share a new schedule.
        most: largest number of steps on this machine.

    Raises:
        ValueError: the time is too short for a single step.
    """
    every = max(1.0, (BETWEEN - pace.report) / pace.step)
    possible = int((SAFETY * seconds - pace.start) / (pace.step + pace.report / every))
    if possible < 1:
        raise ValueError(f"{seconds:.0f} s are too short: {pace}")
    possible = int(min(possible, most))
    steps = done + math.ceil(machines * possible) if total is None else total
    return Plan(min(steps, done + possible), steps, int(every))


class Training:
    """The run of a data set.

    Args:
        chosen: the options of this command.
    """

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.name: str = chosen.name
        self.chosen = chosen
        self.end = time.monotonic() + chosen.seconds
        self.folder: Path = chosen.work / chosen.name
        dry_run = chosen.device == "cpu"
        self.probe = DRY_RUN if dry_run else PROBE
        self.most = DRY_RUN if dry_run else math.inf
        self.arrays = {
            part: chosen.work / f"{chosen.name}-{part}.npy" for part in ("train", "validation")
        }

    def left(self) -> float:
        """The remaining seconds."""
        return self.end - time.monotonic()

    def unpack(self) -> None:
        """Unpack the array files."""
        from prsr.data.packed_arrays import unpack

        for part, array in self.arrays.items():
            unpack(self.chosen.data / f"{self.name}-{part}.zip", array)

    def train(self, folder: Path, plan: Plan, *options: str, limit: float) -> int | None:
        """Run ``prsr train`` with the recipe; returns its exit code, or None if it was killed."""
        arguments = {
            "--data": self.arrays["train"],
            "--validation": self.arrays["validation"],
            "--out": folder,
            "--steps": plan.last,
            "--schedule-steps": plan.steps,
            "--report-every": plan.report_every,
            "--batch-size": self.chosen.batch_size,
            "--device": self.chosen.device,
        }
        flat = [str(word) for pair in arguments.items() for word in pair]
        command = [sys.executable, "-m", "prsr", "train", *flat, *RECIPE, *options]
        print(*command, flush=True)
        return run(command, limit)

    def measure(self) -> Pace:
        """Measure a few steps, compiled if that works within half of the remaining time."""
        preset = ("--preset", self.chosen.preset)
        ways = [("--compile",), ()] if self.chosen.device == "cuda" else [()]
        folder = self.folder.with_name(f"{self.name}-probe")
        for options in ways:
            shutil.rmtree(folder, ignore_errors=True)
            start = time.time()
            plan = Plan(self.probe, self.probe, self.probe // 2)
            if self.train(folder, plan, *preset, *options, limit=self.left() / 2) == 0:
                return pace_of(folder, self.probe, start, options)
            print(f"training failed with {options or 'no options'}", flush=True)
        sys.exit("training does not work here")

    def progress(self) -> tuple[int, int | None]:
        """Steps of the run so far and the last step of its schedule; 0 and None without a run."""
        from prsr.training.trainer import CHECKPOINT_FILE, has_checkpoint, open_checkpoint

        if not has_checkpoint(self.folder):
            return 0, None
        with open_checkpoint(self.folder / CHECKPOINT_FILE) as (_, about):
            return about["step"], about["settings"]["schedule_steps"]

    def run(self) -> None:
        """Run everything; exits with an error if the training failed."""
        self.unpack()
        pace = self.measure()
        done, total = self.progress()
        begin: tuple[str, ...] = ("--preset", self.chosen.preset)
        if total is not None and done < total:
            begin = (*begin, "--resume")
        elif (self.folder / "model").is_dir():
            done, total = 0, None
            earlier = self.folder.with_name(f"{self.name}-earlier")
            self.folder.rename(earlier)
            begin = ("--from", str(earlier / "model"))
        plan = make_plan(pace, self.left(), done, total, self.chosen.machines, self.most)
        rate = self.chosen.batch_size / pace.step
        described = {name: value for name, value in asdict(pace).items() if name != "options"}
        print(f"{rate:,.0f} images/s; seconds: {described}; {plan}", flush=True)
        code = self.train(self.folder, plan, *begin, *pace.options, limit=self.left())
        reached, _ = self.progress()
        print(
            f"step {reached:,} of {plan.steps:,}, {self.chosen.batch_size} images each, "
            f"{rate:,.0f} images/s{' compiled' if pace.options else ''}; {last_values(self.folder)}"
        )
        sys.exit(code != 0)


def pace_of(folder: Path, steps: int, start: float, options: tuple[str, ...]) -> Pace:
    """The durations measured in a short run with two reports.

    Args:
        folder: of the run.
        steps: of the run.
        start: time of its start in seconds since the epoch.
        options: as in :class:`Pace`.
    """
    from prsr.training.trainer import CHECKPOINT_FILE

    clock = {event.step: event.wall_time for event in scalars(folder)["training/loss"]}
    from_step = steps * 5 // 6
    step = (clock[steps] - clock[from_step]) / (steps - from_step)
    written = (folder / CHECKPOINT_FILE).stat().st_mtime
    return Pace(
        start=max(0.0, clock[steps] - start - steps * step),
        step=step,
        report=max(0.0, written - clock[steps]),
        options=options,
    )


def scalars(folder: Path) -> dict[str, list]:  # type: ignore[type-arg]  # TensorBoard has no types
    """All TensorBoard scalars of a run, by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {name: events.Scalars(name) for name in events.Tags()["scalars"]}


def last_values(folder: Path) -> str:
    """The results of the last validation of a run as text."""
    found = {n: e[-1].value for n, e in scalars(folder).items() if n.startswith("validation/")}
    return ", ".join(f"{n.removeprefix('validation/')} {value:.4f}" for n, value in found.items())


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the data set: NAME-train.zip and NAME-validation.zip")
    parser.add_argument("--data", type=Path, required=True, help="folder that contains them")
    parser.add_argument("--work", type=Path, required=True, help="folder for arrays and runs")
    parser.add_argument("--seconds", type=float, required=True, help="time for training")
    parser.add_argument("--machines", type=float, default=1, help="see benchmarks.gpu_all")
    parser.add_argument("--preset", default="paper-conditional")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--batch-size", type=int, default=256)
    Training(parser.parse_args()).run()


if __name__ == "__main__":
    main()
