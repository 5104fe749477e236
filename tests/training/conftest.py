"""A comparison for the tests of training."""

import pytest
import torch


@pytest.fixture(scope="session")
def assert_equal_tensors():
    """A function that checks that two dictionaries hold bit-identical tensors."""

    def check(one, other):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]), name

    return check
