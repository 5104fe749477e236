"""A kill at any moment loses nothing: what goes on ends with what an undisturbed run ends with.

A run of each command is killed before 4 of its changes of files, evenly spread. ``PRSR_KILLS`` is
set by ``make nightly``: then it is killed before every change, and at that many random moments.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

NIGHTLY = int(os.environ.get("PRSR_KILLS", "0"))


def kill(kind, how, kills, seed, folder):
    """What ``killing.py`` has counted."""
    program = Path(__file__).with_name("killing.py")
    call = [sys.executable, str(program), kind, how, str(folder), str(kills), str(seed)]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, (call, done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["train", "data", "sample"])
def test_kills_before_changes_of_files(kind, tmp_path, tally):
    tally.update(kill(kind, "writes", 10**6 if NIGHTLY else 4, 0, tmp_path))
    assert tally["kills"] == tally["rounds"] >= 4


if NIGHTLY:

    @pytest.mark.parametrize("kind", ["train", "data", "sample"])
    def test_kills_at_random_moments(kind, tmp_path, tally):
        seed = random.SystemRandom().randrange(2**31)
        tally.update(kill(kind, "moments", NIGHTLY, seed, tmp_path))
        assert tally["kills"] == NIGHTLY
