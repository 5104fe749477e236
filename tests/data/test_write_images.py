"""Saving image files."""

import pytest
from PIL import Image

from prsr.data.write_images import save_image


def test_an_image_is_saved_in_the_format_of_its_suffix_or_not_at_all(tmp_path, noise_image):
    save_image(noise_image(4, 4), tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (4, 4)
    with pytest.raises(ValueError, match="must have an image suffix"):
        save_image(noise_image(4, 4), tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
