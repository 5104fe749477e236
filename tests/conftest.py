"""What the tests share: one thread, fixed seeds, random models and data, counts of outcomes."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections import Counter
from pathlib import Path

# Before anything imports Triton, for it decides then whether its own functions are interpreted.
os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from prsr import PRESETS, PRSR, PRSRConfig
from prsr.testing import random_images, random_model

torch.set_num_threads(1)
# For the tests of benchmarks/ and examples/. Last, so that an installed prsr comes before this one.
sys.path.append(str(Path(__file__).parents[1]))
settings.register_profile(
    "prsr",
    derandomize=True,
    deadline=None,
    database=None,
    # Fixtures such as make_model return plain functions, which keep nothing between examples.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("prsr")


def build_model(seed=0, gain=2.0, config=PRESETS["tiny"], **changes) -> PRSR:
    """:func:`prsr.testing.random_model` of a preset with changes."""
    return random_model(dataclasses.replace(config, **changes), gain, seed)


@pytest.fixture(scope="session")
def make_model():
    """:func:`build_model`."""
    return build_model


@pytest.fixture(scope="session")
def make_images():
    """:func:`prsr.testing.random_images`."""
    return random_images


STUDY = dataclasses.replace(
    PRSRConfig.preset("tiny"), levels=256, low_height=4, low_width=4, head_channels=3
)
"""Of the models and data that commands of a study are tried with."""


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts with torch's generator in the same state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def threads():
    """A function to set torch's number of threads, which is put back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def command(monkeypatch, capsys):
    """Exit code, output and error output of ``prsr`` with these arguments."""
    from prsr.cli.main import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["prsr", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def models(tmp_path):
    """The folder of a saved model by method."""
    from prsr.models.registry import MODELS

    torch.manual_seed(0)
    for method, model in MODELS.items():
        model(STUDY).save_pretrained(tmp_path / method)
    return {method: tmp_path / method for method in MODELS}


@pytest.fixture
def data(tmp_path):
    """An array file of five random images."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "data.npy", pixels)
    return tmp_path / "data.npy"


@pytest.fixture
def model(tmp_path):
    """The folder of a saved model that is sampled from in no time."""
    torch.manual_seed(0)
    PRSR(PRESETS["tiny"]).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def photos(tmp_path):
    """A folder of three random images of several sizes and kinds, one in a folder of its own."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (16, 20, 3)), ("b.jpg", (12, 12)), ("more/a.png", (7, 9, 3))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    return folder


def pytest_terminal_summary(terminalreporter):
    """Print what tests have counted."""
    reports = [report for each in terminalreporter.stats.values() for report in each]
    properties = [own for r in reports for own in getattr(r, "user_properties", [])]
    if counts := sorted({value for name, value in properties if name == "count"}):
        terminalreporter.section("counts")
        for line in counts:
            terminalreporter.write_line(line)


@pytest.fixture
def tally(record_property, request):
    """How often each outcome came, a counter that is printed at the end of the run."""
    outcomes = Counter()
    yield outcomes
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(outcomes.items()))
    record_property("count", f"{request.node.name}: {sum(outcomes.values()):,}: {counts}")
