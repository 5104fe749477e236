"""A kill at any moment loses nothing: what goes on ends with what an undisturbed run ends with.

``PRSR_KILLS`` says how many kills each command gets: 4, or 100 in ``make nightly``.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("PRSR_KILLS", "4"))


@pytest.mark.parametrize("kind", ["train", "data", "sample"])
def test_kills(kind, tmp_path, tally):
    seed = random.SystemRandom().randrange(2**31)
    program = Path(__file__).with_name("killing.py")
    call = [sys.executable, str(program), kind, str(tmp_path), str(KILLS), str(seed)]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, (seed, done.stderr)
    tally.update(json.loads(done.stdout.splitlines()[-1]))
    assert tally["kills"] == KILLS
