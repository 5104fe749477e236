"""`prsr.sample` warns of images much larger than those that the model was trained on."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import prsr
from prsr.utils.terminal_messages import Notice


@pytest.mark.parametrize(("height", "width"), [(13, 3), (3, 13)])
@pytest.mark.parametrize("form", ["tensor", "array", "image"])
def test_a_large_image_is_sampled_with_a_warning(model, height, width, form):
    tensor = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    image = Image.fromarray(np.zeros((height, width, 3), np.uint8))
    batch = {"tensor": tensor, "array": tensor.numpy(), "image": image}[form]
    with pytest.warns(Notice, match=rf"{width}×{height} .* 3×3\. .*resize\(\(3, 3\)\)") as caught:
        sample = prsr.sample(batch, model=model, seed=0)
    assert sample.shape == (1, 3, 2 * height, 2 * width)
    assert [warning.filename for warning in caught] == [__file__]  # the caller's line, once


def test_an_image_four_times_as_large_gives_no_warning(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prsr.sample(torch.zeros(1, 3, 12, 12, dtype=torch.uint8), model=model, seed=0)


def test_the_warning_gives_the_training_size_of_the_model(make_model):
    with pytest.warns(Notice, match=r"trained on 2×5\. .*resize\(\(2, 5\)\)"):
        prsr.sample(
            torch.zeros(1, 3, 5, 9, dtype=torch.uint8),
            model=make_model(low_height=5, low_width=2),
            seed=0,
        )
