"""Many raters at once: the time that a study's pages take, and that no answer is lost or doubled.

    python -m benchmarks.study_load --raters 50

Starts `prsr web` as a process of its own, with a study of random images. Each rater takes the whole
study, looks at each pair for a second (the exposure of a study), and sends every answer twice at
the same time. The raters run on this machine as well and take a share of its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe
from prsr.config import PRSRConfig
from prsr.study.storage import Settings, Study, StudyInput, create_study, study_path
from prsr.study.study_images import as_png

NAME = "load"
SETTINGS = Settings("Which one is a photograph?", 1000, per_method=10, catch=4, seed=0)
INPUTS, SIDE = 40, 32
TOKEN = re.compile(r'name="trial" value="([^"]+)"')


def make_study(folder: Path) -> Study:
    """A study of two methods with random images."""
    rng = np.random.default_rng(0)

    def png() -> bytes:
        return as_png(rng.integers(0, 256, (3, SIDE, SIDE), np.uint8), PRSRConfig())

    inputs = [
        StudyInput(f"{i}", png(), png(), {"one": png(), "other": png()}) for i in range(INPUTS)
    ]
    create_study(study_path(folder, NAME), SETTINGS, ["one", "other"], inputs)
    return Study(folder, NAME)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a server of the studies in a folder."""
    command = [sys.executable, "-m", "prsr", "web", "--port", "0", "--model", "faces"]
    process = subprocess.Popen(
        [*command, "--studies", str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        if not found:
            raise RuntimeError(f"prsr web ended with {process.wait()}")
        yield found.group().rstrip("/")
    finally:
        process.kill()
        process.wait()


async def take_study(address: str, pause: float, seconds: list[float]) -> dict[int, str]:
    """Take the study as one rater.

    Args:
        address: of the server.
        pause: seconds before each answer.
        seconds: what each request took is added to it.

    Returns:
        The side chosen at each position, as the rater remembers it.
    """
    url = f"{address}/study/{NAME}"
    chosen: dict[int, str] = {}
    async with httpx.AsyncClient(follow_redirects=True, timeout=120) as client:

        async def request(method: str, path: str, **options: object) -> httpx.Response:
            start = time.perf_counter()
            response = await client.request(method, url + path, **options)  # type: ignore[arg-type]  # object
            seconds.append(time.perf_counter() - start)
            return response.raise_for_status()

        page = await request("POST", "/begin")
        while match := TOKEN.search(page.text):
            number = re.search(r"(\d+) of \d+", page.text)
            assert number is not None
            await asyncio.sleep(pause)
            form = {"trial": match[1], "choice": "left" if ord(match[1][0]) % 2 else "right"}
            chosen[int(number[1])] = form["choice"]
            page, _ = await asyncio.gather(
                request("POST", "/pair", data=form), request("POST", "/pair", data=form)
            )
    return chosen


async def take_studies(
    address: str, raters: int, pause: float
) -> tuple[list[dict[int, str]], list[float]]:
    """Let many raters take the study at once: what each chose, and the seconds of each request."""
    seconds: list[float] = []
    chosen = await asyncio.gather(*(take_study(address, pause, seconds) for _ in range(raters)))
    return chosen, seconds


def stored_choices(study: Study) -> list[dict[int, str]]:
    """What the study has stored of each rater, in the form of :func:`take_study`."""
    found: dict[int, dict[int, str]] = {}
    for answer in study.answers():
        side = "left" if answer.chose_left else "right"
        found.setdefault(answer.rater, {})[answer.position] = side
    return list(found.values())


def differences(remembered: list[dict[int, str]], stored: list[dict[int, str]]) -> int:
    """Answers that raters gave and the study lacks, or the other way round; raters may be equal."""
    given, kept = (Counter(tuple(sorted(c.items())) for c in each) for each in (remembered, stored))
    left = (given - kept) + (kept - given)
    return sum(len(answers) * times for answers, times in left.items())


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds before each answer")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = make_study(Path(folder))
        with serving(Path(folder)) as address:
            start = time.perf_counter()
            chosen, seconds = asyncio.run(take_studies(address, given.raters, given.pause))
            whole = time.perf_counter() - start
        wrong = differences(chosen, stored_choices(study))
    table = Table(title=f"{given.raters} raters at once, {len(seconds):,} requests")
    for heading in ("median", "95th percentile", "longest", "requests/s", "wrong answers"):
        table.add_column(heading, justify="right")
    shown = (f"{1000 * value:.0f} ms" for value in np.quantile(seconds, (0.5, 0.95, 1)))
    table.add_row(*shown, f"{len(seconds) / whole:.0f}", str(wrong))
    console = Console(width=100, highlight=False)
    for name, fact in describe().items():
        console.print(f"{name}: {fact}")
    console.print(table)
    if wrong:
        sys.exit(f"{wrong} answers are lost or doubled")


if __name__ == "__main__":
    main()
