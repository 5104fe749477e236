"""Shared by all tests: one thread, fixed seeds, random models and data, counts of outcomes."""

from __future__ import annotations

import dataclasses
import io
import os
import sys
from collections import Counter
from pathlib import Path

# Before anything imports Triton, which decides on import whether to interpret its functions.
os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from prsr import PRESETS, PRSR, PRSRConfig
from prsr.testing import random_images, random_model

torch.set_num_threads(1)
# For the tests of benchmarks/ and examples/. Appended, so that an installed prsr takes precedence.
sys.path.append(str(Path(__file__).parents[1]))
settings.register_profile(
    "prsr",
    derandomize=True,
    deadline=None,
    database=None,
    # Fixtures such as make_model return functions without state, which examples can share.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("prsr")


def build_model(seed=0, gain=2.0, config=PRESETS["tiny"], **changes) -> PRSR:
    """A :func:`prsr.testing.random_model` of a preset with some fields changed."""
    return random_model(dataclasses.replace(config, **changes), gain, seed)


@pytest.fixture(scope="session")
def make_model():
    """The function :func:`build_model`."""
    return build_model


@pytest.fixture(scope="session")
def make_images():
    """The function :func:`prsr.testing.random_images`."""
    return random_images


@pytest.fixture(scope="session")
def wide_head():
    """Changes of the preset tiny: a head wide enough to be computed in one product per colour."""
    return {"head_channels": 100, "levels": 16}


SMALL = dataclasses.replace(
    PRSRConfig.preset("tiny"), levels=256, low_height=4, low_width=4, head_channels=3
)
"""The configuration of the models and data for tests of commands."""


@pytest.fixture(autouse=True)
def seeded():
    """Start every test with torch's generator in the same state."""
    torch.manual_seed(0)


@pytest.fixture
def threads():
    """A function that sets torch's number of threads until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def encode():
    """A function that encodes a Pillow image in a format; returns the bytes."""

    def encoded(image, kind, **options):
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    return encoded


@pytest.fixture(scope="session")
def read_scalars():
    """A function that reads the event files of a folder: pairs of step and value by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder):
        events = EventAccumulator(str(folder))
        events.Reload()
        tags = events.Tags()["scalars"]
        return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}

    return read


@pytest.fixture
def command(monkeypatch, capsys):
    """A function that runs ``prsr`` and returns its exit code, stdout and stderr."""
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
    """The folders of saved models, by method."""
    from prsr.models.registry import MODELS

    torch.manual_seed(0)
    for method, model in MODELS.items():
        model(SMALL).save_pretrained(tmp_path / method)
    return {method: tmp_path / method for method in MODELS}


@pytest.fixture
def data(tmp_path):
    """An array file of five random images."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "data.npy", pixels)
    return tmp_path / "data.npy"


@pytest.fixture
def model(tmp_path):
    """The folder of a saved model that is fast to sample."""
    torch.manual_seed(0)
    PRSR(PRESETS["tiny"]).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def photos(tmp_path):
    """A folder of three random images of different sizes and formats, one in a subfolder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (16, 20, 3)), ("b.jpg", (12, 12)), ("more/a.png", (7, 9, 3))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    return folder


def pytest_terminal_summary(terminalreporter):
    """Print the counts that tests recorded."""
    reports = [report for each in terminalreporter.stats.values() for report in each]
    properties = [own for r in reports for own in getattr(r, "user_properties", [])]
    if counts := sorted({value for name, value in properties if name == "count"}):
        terminalreporter.section("counts")
        for line in counts:
            terminalreporter.write_line(line)


@pytest.fixture
def tally(record_property, request):
    """A counter of outcomes, printed at the end of the run."""
    outcomes = Counter()
    yield outcomes
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(outcomes.items()))
    record_property("count", f"{request.node.name}: {sum(outcomes.values()):,}: {counts}")
