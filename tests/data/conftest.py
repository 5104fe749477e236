"""Random images for the tests of data."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def noise_image():
    """A function that makes an image of random pixels."""

    def make(width=9, height=7, mode="RGB", seed=0):
        shape = (height, width) if mode == "L" else (height, width, len(mode))
        return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))

    return make
