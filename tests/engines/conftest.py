"""What the tests of the CUDA kernels share."""

import pytest

from tests.engines.emulated import build, load


@pytest.fixture(scope="session")
def extension():
    """The emulated extension ``_cuda``."""
    return load(build())
