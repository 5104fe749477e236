"""Commands run one after the other, each with a log and a time limit; none stops the next.

Standard library only: the first stage may be the one that installs everything else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

PASSED, FAILED, TIMED_OUT, SKIPPED = "passed", "failed", "timed out", "skipped"

CANNOT_SERVE = 77
"""The exit code of a command that does not apply to this machine, as test runners use it."""

KILLING = 10
"""Seconds that killed processes are given to end."""

DETAIL = 300
"""Characters of the last line of a log that a summary shows."""


@dataclass(frozen=True)
class Result:
    """What came of a stage.

    Attributes:
        stage: its name.
        outcome: "passed", "failed", "timed out" or "skipped".
        seconds: that it took.
        detail: the reason, or the last line that the command printed.
    """

    stage: str
    outcome: str
    seconds: float
    detail: str


def run_stage(
    name: str,
    command: Sequence[str],
    limit: float,
    log: Path,
    *,
    tick: Callable[[], object] | None = None,
    every: float = 60,
) -> Result:
    """Run a command until it ends or its time is over; all its processes have ended afterwards.

    Args:
        name: of the stage.
        command: program and arguments.
        limit: seconds after which it is killed, with everything it started.
        log: gets what it prints; later runs append.
        tick: called again and again meanwhile; its errors are printed, and do no harm.
        every: seconds between these calls.
    """
    start = time.monotonic()
    try:
        with log.open("ab") as output:
            code = run(command, limit, output.fileno(), tick=tick, every=every)
    except OSError as error:
        return Result(name, FAILED, time.monotonic() - start, str(error))
    detail = last_line(log)
    if code is None:
        outcome, detail = TIMED_OUT, f"killed after {limit:.0f} s; last line: {detail}"
    elif code == CANNOT_SERVE:
        outcome = SKIPPED
    elif code:
        outcome, detail = FAILED, f"exit code {code}; last line: {detail}"
    else:
        outcome = PASSED
    return Result(name, outcome, time.monotonic() - start, detail)


def run(
    command: Sequence[str],
    limit: float,
    output: int | None = None,
    *,
    tick: Callable[[], object] | None = None,
    every: float = 60,
) -> int | None:
    """Run a command; its exit code, or None where it did not end within ``limit`` seconds.

    Args:
        command: program and arguments.
        limit: in seconds.
        output: file descriptor that it prints to; None is ours.
        tick: as in :func:`run_stage`.
        every: likewise.

    Raises:
        OSError: it cannot be started.
    """
    # Inherited by whatever the command starts, in a session of its own or not.
    mark = f"PRSR_STAGE_{uuid.uuid4().hex}"
    end = time.monotonic() + limit
    process = None
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {mark: "1", "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        while True:
            left = end - time.monotonic()
            try:
                return process.wait(max(0, min(left, every)))
            except subprocess.TimeoutExpired:
                if left <= every:
                    return None
            if tick is not None:
                attempt(tick)
    finally:
        kill_marked(mark)
        if process is not None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # a driver that hangs keeps even the killed
                process.wait(KILLING)


def attempt(action: Callable[[], object]) -> None:
    """Do it; an error is printed, and ends nothing."""
    try:
        action()
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)


def kill_marked(mark: str) -> None:
    """Kill all processes that have a variable of this name, and those they start meanwhile."""
    end = time.monotonic() + KILLING
    while time.monotonic() < end:
        found = False
        for environment in Path("/proc").glob("[0-9]*/environ"):
            # Not all may be read; a process that has ended, and waits to be reaped, has none.
            with suppress(OSError):
                if f"\0{mark}=1\0".encode() in b"\0" + environment.read_bytes():
                    os.kill(int(environment.parent.name), signal.SIGKILL)
                    found = True
        if not found:
            return
        time.sleep(0.02)


def last_line(log: Path) -> str:
    """The last line of a log that is not empty, at most ``DETAIL`` characters of it."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip()[:DETAIL] for line in reversed(lines) if line.strip()), "no output")


def summary(results: Sequence[Result]) -> str:
    """A line for each stage."""
    width = max((len(result.stage) for result in results), default=0)
    return "".join(
        f"{result.stage:<{width}}  {result.outcome:<9}  {result.seconds:6.1f} s  {result.detail}\n"
        for result in results
    )


def summary_json(results: Sequence[Result], **facts: object) -> str:
    """The same for programs, with more facts by name."""
    about = {**facts, "stages": [asdict(result) for result in results]}
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"
