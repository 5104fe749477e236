"""All benchmarks, checks and trainings for a GPU machine, in one command.

    make gpu-all DATA=packed SECONDS=560 OUT=results
    python -m benchmarks.gpu_all --data packed --seconds 560 --out results

The stages, most important first: **build** (the C++ and CUDA modules, into the Python that runs
this); **engine-cuda-PRECISION** (checks of the engine ``cuda`` on this GPU); **cuda** (figures of
that engine); **engine-triton**; **figures** (of that engine); **engine-torch**;
**sanitizer-ENGINE** (``compute-sanitizer`` on a tiny model); and **train-NAME** for each data set,
in the remaining time. Each is a separate process with a log and a time limit, so that an error that
leaves a process without its GPU costs one stage. All stages run, even if some fail. The exit code
is 1 if one failed, timed out or had no time left. ``make gpu`` is the same without data.

**Inputs:**

* the tracked files of the repository. No network is needed if PyTorch, Triton, the dependencies in
  ``pyproject.toml`` (with the extra ``train``), setuptools, cmake, ninja and pybind11 are
  installed;
* ``DATA``: a folder with ``NAME-train.zip`` and ``NAME-validation.zip`` for each data set, written
  by ``prsr data pack``; by default ``portraits`` and ``cartoons``. Missing sets are skipped;
* ``RESUME``, to continue a training: a folder with ``summary.json`` and the set's ``NAME.tar.*`` of
  an earlier ``OUT``;
* ``WHEELS``, if packages are missing on the machine: a folder of wheels (``make gpu-wheels``).

**Outputs** are in ``OUT``, updated about every minute. With the default data sets and model there
are at most seven files of at most 15 MiB, 51 MiB in total:

* ``summary.txt`` and ``summary.json``: result and duration of each stage;
* ``report.tar.0``: logs, figures, sample sheets and training curves;
* ``NAME.tar.0`` and so on: the model (the average of the weights) and, for the data set trained
  last, the checkpoint (raw weights, average, optimiser). ``cat NAME.tar.* | tar -x`` unpacks them.

With ``RESUME``, a run continues from its checkpoint to the end of its schedule. After that, or
without a checkpoint, a new schedule starts from its model. With ``--machines 2``, a new schedule is
twice as long as the time on this machine, so that another machine can continue it.

Standard library only, because the build installs everything else.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.parts import read_archive, write_archive, write_file
from benchmarks.stages import FAILED, SKIPPED, TIMED_OUT, Result, run_stage, summary, summary_json

PRECISIONS = ("fp32", "fp16", "bf16")

STAGES = (
    "build",
    *(f"engine-cuda-{precision}" for precision in PRECISIONS),
    "cuda",
    "engine-triton",
    "figures",
    "engine-torch",
    "sanitizer-cuda",
    "sanitizer-triton",
)
"""All stages but trainings, in order."""

LIMITS = {
    "build": 150.0,
    "engine": 60.0,
    "engine-triton": 150.0,
    "figures": 120.0,
    "cuda": 120.0,
    "sanitizer": 120.0,
}
"""Seconds that a stage may take, by the beginning of its name; training may use what is left."""

SHARES = {"portraits": 0.6, "cartoons": 0.4}
"""Shares of the training time by data set, in the order of training."""

RESERVE = 8
"""Seconds reserved for the last archives and the end of a training."""

CHECKPOINT = "checkpoint.safetensors"


class Session:
    """All stages on one machine, and their outputs in ``OUT``.

    Args:
        chosen: the options of this command.
    """

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.start = time.monotonic()
        self.out: Path = chosen.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.work = Path(tempfile.mkdtemp(prefix="gpu-all-"))
        (self.work / "logs").mkdir()
        self.results: list[Result] = []
        self.archives: dict[str, dict[str, int | str]] = {}
        self.trained: list[str] = []

    def left(self) -> float:
        """Seconds until all outputs must be written."""
        return self.chosen.seconds - RESERVE - (time.monotonic() - self.start)

    def run(self) -> int:
        """Run all stages; returns the exit code."""
        print(f"working in {self.work}", flush=True)
        try:
            for name, command in self.stages():
                self.stage(name, command, self.limit(name, self.left()))
            self.train()
        finally:
            self.publish()
        print(summary(self.results), end="", flush=True)
        return int(any(result.outcome in (FAILED, TIMED_OUT) for result in self.results))

    def stages(self) -> Iterator[tuple[str, list[str]]]:
        """Names of all stages except training, and their commands without ``python``."""
        chosen = self.chosen
        wheels = [] if chosen.wheels is None else ["--wheels", str(chosen.wheels)]
        yield "build", ["-m", "benchmarks.gpu_build", *wheels]
        # The targets of figures are for the paper's model.
        preset = chosen.preset if chosen.device == "cpu" else "paper"
        measured = ["--quick", "--preset", preset]
        gpu = ["-m", "benchmarks.gpu", "--device", chosen.device]
        for name in STAGES[1:]:
            output = ["--json", str(self.work / f"{name}.json")]
            kind, *subject = name.split("-")
            if kind == "cuda":
                yield name, ["-m", "benchmarks.gpu_cuda", *measured, *output]
            elif kind == "figures":
                yield name, [*gpu, "--only", "figures", *measured, *output]
            else:
                only = "checks" if kind == "engine" else kind
                check = ["--only", only, "--engine", subject[0], "--preset", chosen.preset]
                check += [f"--precision={precision}" for precision in subject[1:]]
                # The engine torch has no kernels of its own, and takes seconds per batch.
                quick = ["--quick"] if subject[0] == "torch" or chosen.device == "cpu" else []
                yield name, [*gpu, *check, *quick, *output]

    def limit(self, name: str, most: float) -> float:
        """Seconds that a stage may take: as its name says, or the longest beginning of it."""
        own = {**LIMITS, **self.chosen.limit}
        words = name.split("-")
        beginnings = ("-".join(words[:count]) for count in range(len(words), 0, -1))
        return min(most, next((own[each] for each in beginnings if each in own), most))

    def stage(self, name: str, command: list[str], limit: float) -> None:
        """Run a stage, publish meanwhile, and record its result."""
        begin = time.monotonic()

        def result(outcome: str, detail: str) -> Result:
            return Result(name, outcome, time.monotonic() - begin, detail)

        if limit <= 0:
            wanted = self.limit(name, 1) > 0
            outcome = (TIMED_OUT, "no time was left") if wanted else (SKIPPED, "its limit is 0 s")
            self.add(result(*outcome))
            return
        log = self.work / "logs" / f"{name}.log"
        try:
            print(f"{name}: at most {limit:.0f} s", flush=True)
            done = run_stage(
                *(name, [sys.executable, *command], limit, log),
                tick=lambda: self.publish(result("running", "")),
                every=self.chosen.every,
            )
        except BaseException as error:
            self.results.append(result(FAILED, f"interrupted: {type(error).__name__}"))
            raise
        self.add(done)

    def add(self, result: Result) -> None:
        """Record the result of a stage."""
        self.results.append(result)
        print(summary([result]), end="", flush=True)
        self.publish()

    def train(self) -> None:
        """Train on each data set for its share of the remaining time."""
        shares = dict(self.chosen.share)
        for name in list(shares):
            fault = self.reason_to_skip(name)
            if fault:
                del shares[name]
                self.add(Result(f"train-{name}", SKIPPED, 0, fault))
        while shares:
            name = next(iter(shares))
            part = shares[name] / sum(shares.values())
            del shares[name]
            self.restore(name)
            self.trained.append(name)
            limit = self.limit(f"train-{name}", part * self.left())
            self.stage(f"train-{name}", self.training(name, limit), limit)

    def reason_to_skip(self, name: str) -> str:
        """Why a data set is not trained on; empty if it is."""
        if self.chosen.share[name] == 0:
            return "its share is 0"
        if self.chosen.data is None:
            return "no --data was given"
        files = [self.chosen.data / f"{name}-{part}.zip" for part in ("train", "validation")]
        return ", ".join(f"no {file}" for file in files if not file.is_file())

    def training(self, name: str, limit: float) -> list[str]:
        """The command that trains on a data set."""
        chosen = self.chosen
        return [
            *("-m", "benchmarks.gpu_training", name),
            *("--data", str(chosen.data), "--work", str(self.work)),
            *("--seconds", f"{limit - RESERVE / 2:.1f}", "--machines", str(chosen.machines)),
            *("--preset", chosen.preset, "--device", chosen.device),
            *("--batch-size", str(chosen.batch_size)),
        ]

    def restore(self, name: str) -> None:
        """Unpack an earlier run; if that fails, a new training starts."""
        earlier = self.chosen.resume
        if earlier is None or not (earlier / f"{name}.tar.0").exists():
            return
        try:
            about = json.loads((earlier / "summary.json").read_text())["archives"][name]
            read_archive(earlier, name, about, self.work)
        except (OSError, ValueError, LookupError) as error:
            reason = f"{type(error).__name__}: {error}"
            self.add(Result(f"resume-{name}", FAILED, 0, reason))

    def publish(self, running: Result | None = None) -> None:
        """Update the files in ``OUT``."""
        files = [*self.work.glob("logs/*"), *self.work.glob("*.json")]
        for name in self.trained:
            run = self.work / name
            files += [*run.glob("sheets/*.png"), *run.glob("events.*")]
            kept = list(run.glob("model/*"))
            if name == self.trained[-1]:
                kept += run.glob(CHECKPOINT)
            if kept:
                self.archives[name] = write_archive(self.out, name, self.work, kept)
        self.archives["report"] = write_archive(self.out, "report", self.work, files)
        results = [*self.results, *([] if running is None else [running])]
        facts = {"seconds": time.monotonic() - self.start, "archives": self.archives}
        write_file(self.out / "summary.json", summary_json(results, **facts).encode())
        write_file(self.out / "summary.txt", summary(results).encode())


def parse_name_number(text: str) -> tuple[str, float]:
    """Parse NAME=NUMBER with a number of at least 0.

    Raises:
        ValueError: it is not.
    """
    name, _, number = text.partition("=")
    if not name or not 0 <= float(number) < float("inf"):
        raise ValueError(text)
    return name, float(number)


def positive(text: str) -> float:
    """Parse a positive number.

    Raises:
        ValueError: it is not.
    """
    if not 0 < float(text) < float("inf"):
        raise ValueError(text)
    return float(text)


def folder(text: str) -> Path:
    """Parse the path of an existing folder.

    Raises:
        argparse.ArgumentTypeError: it does not exist.
    """
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"no folder {text}")
    return Path(text).resolve()


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=folder, help="packed data sets; without it, no training")
    add("--out", type=lambda text: Path(text).resolve(), required=True)
    add("--seconds", type=positive, required=True, help="for all stages")
    add("--resume", type=folder, help="an earlier --out to continue from")
    add("--wheels", type=folder, help="folder of wheels of packages that may be missing")
    pairs: dict[str, Any] = {
        "type": parse_name_number,
        "action": "append",
        "default": [],
        "metavar": "NAME=NUMBER",
    }
    add("--limit", **pairs, help="seconds for the stages that begin so; 0 skips them")
    add("--share", **pairs, help="share of the training time of a data set")
    add(
        "--machines",
        type=positive,
        default=1,
        help="machines that share a new training schedule",
    )
    add("--preset", default="paper-conditional", help="to train, and to check engines with")
    add("--device", default="cuda", choices=["cuda", "cpu"], help="cpu is a dry run")
    add("--batch-size", type=int, default=256)
    add("--every", type=positive, default=60, help="seconds between updates of --out")
    chosen = parser.parse_args()
    chosen.limit, chosen.share = dict(chosen.limit), dict(chosen.share) or SHARES
    stages = [*STAGES, *(f"train-{name}" for name in chosen.share)]
    for name in chosen.limit:
        if not any(f"{stage}-".startswith(f"{name}-") for stage in stages):
            parser.error(f"--limit: there is no stage {name}")
    return chosen


def main() -> None:
    """Run all stages."""
    # If terminated early, publish the results so far and end all processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(Session(options()).run())


if __name__ == "__main__":
    main()
