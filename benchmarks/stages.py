"""Run commands one after another, each with a log and a time limit, also after failures.

Standard library only, because the first stage may install everything else.
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
"""The exit code of a command that does not apply to this machine, as in other test runners."""

KILLING = 10
"""Seconds to wait for killed processes."""

DETAIL = 300
"""The largest number of characters of a log's last line in a summary."""


@dataclass(frozen=True)
class Result:
    """The result of a stage.

    Attributes:
        stage: name of the stage.
        outcome: "passed", "failed", "timed out" or "skipped".
        seconds: duration.
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
    """Run a command until it ends or reaches its time limit; then kill all its processes.

    Args:
        name: of the stage.
        command: program and arguments.
        limit: seconds after which it is killed.
        log: file that its output is appended to.
        tick: called repeatedly meanwhile; its errors are printed and otherwise ignored.
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
    """Run a command; returns its exit code, or None if it did not end within ``limit`` seconds.

    Args:
        command: program and arguments.
        limit: in seconds.
        output: file descriptor for its output; None is that of this process.
        tick: as in :func:`run_stage`.
        every: as in :func:`run_stage`.

    Raises:
        OSError: it cannot be started.
    """
    # All processes that the command starts inherit this variable, also in other sessions.
    mark = f"PRSR_STAGE_{uuid.uuid4().hex}"
    end = time.monotonic() + limit
    process = None
    try:
        # A signal between fork and exec would leave a process that does not have the variable yet.
        blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {mark: "1", "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)
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
            with suppress(subprocess.TimeoutExpired):  # a hanging driver can keep a killed process
                process.wait(KILLING)


def attempt(action: Callable[[], object]) -> None:
    """Call ``action``; print errors instead of raising them."""
    try:
        action()
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)


def kill_marked(mark: str) -> None:
    """Kill all processes that have this environment variable, repeatedly until there are none."""
    end = time.monotonic() + KILLING
    while time.monotonic() < end:
        found = False
        for environment in Path("/proc").glob("[0-9]*/environ"):
            # Some are not readable; a process that has ended but was not reaped has none.
            with suppress(OSError):
                if f"\0{mark}=1\0".encode() in b"\0" + environment.read_bytes():
                    os.kill(int(environment.parent.name), signal.SIGKILL)
                    found = True
        if not found:
            return
        time.sleep(0.02)


def last_line(log: Path) -> str:
    """At most ``DETAIL`` characters of the last non-empty line of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip()[:DETAIL] for line in reversed(lines) if line.strip()), "no output")


def summary(results: Sequence[Result]) -> str:
    """A summary with one line per stage."""
    width = max((len(result.stage) for result in results), default=0)
    return "".join(
        f"{result.stage:<{width}}  {result.outcome:<9}  {result.seconds:6.1f} s  {result.detail}\n"
        for result in results
    )


def summary_json(results: Sequence[Result], **facts: object) -> str:
    """A summary as JSON, with additional values."""
    about = {**facts, "stages": [asdict(result) for result in results]}
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"
