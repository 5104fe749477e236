"""The commands train and sample every method."""

import numpy as np
import pytest
from PIL import Image

from prsr.models.registry import MODELS


@pytest.mark.parametrize("method", sorted(MODELS))
def test_every_method_is_trained_and_sampled_by_the_same_commands(method, command, tmp_path):
    np.save(tmp_path / "six.npy", np.zeros((4, 3, 6, 6), np.uint8))
    code, _, errors = command(
        *("train", "--method", method, "--preset", "tiny", "--data", tmp_path / "six.npy"),
        *("--steps", 1, "--batch-size", 2, "--out", tmp_path / "run", "--device", "cpu"),
    )
    assert (code, errors) == (0, "")
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(image)
    code, printed, _ = command(
        "sample", image, "-o", tmp_path / "sheet.png", "--model", tmp_path / "run" / "model"
    )
    assert code == 0
    assert (tmp_path / "sheet.png").is_file()
    assert (method if method in ("l2", "independent") else "engine cpu") in printed
