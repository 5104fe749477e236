"""``prsr figure`` writes each figure."""

import numpy as np
import pytest
from PIL import Image

FIGURES = {
    "methods": ("--baseline", "bicubic"),
    "temperatures": ("--temperature", 1, "--temperature", 0),
    "samples": ("--samples", 2),
    "growth": (),
}


@pytest.mark.parametrize("name", FIGURES)
def test_one_command_writes_each_figure(name, command, models, data, tmp_path):
    out = tmp_path / ("figure.gif" if name == "growth" else "figure.png")
    code, printed, errors = command(
        *("figure", name, "--data", data, "--model", models["recursive"], "--images", 2),
        *(*FIGURES[name], "--out", out),
    )
    assert (code, errors) == (0, "")
    assert "wrote" in printed
    with Image.open(out) as image:
        assert min(image.size) > 100


def test_one_command_plots_training_curves(command, tmp_path):
    np.save(tmp_path / "six.npy", np.zeros((4, 3, 6, 6), np.uint8))
    command(
        *("train", "--preset", "tiny", "--data", tmp_path / "six.npy", "--device", "cpu"),
        *("--steps", 2, "--batch-size", 2, "--out", tmp_path / "run"),
    )
    code, _, errors = command("figure", "curves", tmp_path / "run", "-o", tmp_path / "curves.png")
    assert (code, errors) == (0, "")
    assert (tmp_path / "curves.png").is_file()
