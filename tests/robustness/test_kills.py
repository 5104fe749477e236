"""A command killed at any time can be resumed and ends with the output of an undisturbed run.

A run of each command is killed before 4 of its changes of files, evenly spaced. ``make nightly``
sets ``PRSR_KILLS``: it is then killed before every change, and at that many random times.
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
    """The counts of a run of ``killing.py``."""
    program = Path(__file__).with_name("killing.py")
    call = [sys.executable, str(program), kind, how, str(folder), str(kills), str(seed)]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, (call, done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["train", "data", "sample"])
def test_a_run_killed_before_a_change_of_files_resumes_to_the_same_output(kind, tmp_path, tally):
    tally.update(kill(kind, "writes", 10**6 if NIGHTLY else 4, 0, tmp_path))
    assert tally["kills"] == tally["rounds"] >= 4


if NIGHTLY:

    @pytest.mark.parametrize("kind", ["train", "data", "sample"])
    def test_a_run_killed_at_a_random_time_resumes_to_the_same_output(kind, tmp_path, tally):
        seed = random.SystemRandom().randrange(2**31)
        tally.update(kill(kind, "moments", NIGHTLY, seed, tmp_path))
        assert tally["kills"] == NIGHTLY
