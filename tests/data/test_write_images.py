"""Saving image files."""

import pytest
from PIL import Image

from prsr.data.write_images import SUFFIXES, check_writable, save_image


def test_an_image_is_saved_in_the_format_of_its_suffix_or_not_at_all(tmp_path, noise_image):
    save_image(noise_image(4, 4), tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (4, 4)
    with pytest.raises(ValueError, match="must have an image suffix"):
        save_image(noise_image(4, 4), tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_prsr_recognises_its_own_images_or_says_that_it_cannot(suffix, tmp_path, noise_image):
    path = tmp_path / f"sheet{suffix}"
    save_image(noise_image(9, 9), path, "sample")
    if suffix in (".bmp", ".ppm"):
        with pytest.raises(FileExistsError, match=rf"cannot recognise \{suffix} files"):
            check_writable(path, overwrite=False)
    else:
        check_writable(path, overwrite=False)
        noise_image(9, 9).save(path)
        with pytest.raises(FileExistsError, match="was not written by prsr"):
            check_writable(path, overwrite=False)
