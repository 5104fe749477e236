"""A model and a sampler for the tests of sampling."""

import pytest

from prsr import Sampler


@pytest.fixture
def model(make_model):
    """A random model of the preset tiny, which enlarges 3×3 images twofold."""
    return make_model()


@pytest.fixture
def sampler(model):
    """A sampler of ``model``."""
    return Sampler(model)
