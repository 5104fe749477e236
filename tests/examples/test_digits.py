"""The build script of the digits."""

import numpy as np

from examples.digits import build as digits


def test_digits_are_split_by_index_and_interleaved():
    images = np.arange(43, dtype=np.uint8).reshape(-1, 1, 1, 1)
    parts = digits.split(images)
    assert {name: part[[0, -1]].ravel().tolist() for name, part in parts.items()} == {
        "train": [0, 36],
        "validation": [37, 38],
        "test": [39, 42],
    }
    groups = [np.array(values, np.uint8) for values in ([1, 2, 3], [4], [5, 6])]
    assert digits.interleave(groups).tolist() == [1, 4, 5, 2, 6, 3]
