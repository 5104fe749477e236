"""Images to arrays and back: reduction in the paper's order, levels and orientation."""

import numpy as np
import pytest
from PIL import Image

from prsr import PRSRConfig
from prsr.data.image_arrays import (
    centre_crop,
    high_resolution,
    read_image,
    reduce,
    to_array,
    to_pil,
)

COLOUR = PRSRConfig.preset("compact")
TINY = PRSRConfig.preset("tiny")
DIGITS = PRSRConfig.preset("digits")


def test_the_high_resolution_is_a_centre_crop_then_bicubic(noise_image):
    image = noise_image(70, 50)
    expected = image.crop((10, 0, 60, 50)).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(high_resolution(image, COLOUR), np.asarray(expected).transpose(2, 0, 1))


def test_the_low_resolution_is_bicubic_of_the_high_one(noise_image):
    hr = high_resolution(noise_image(70, 50), COLOUR)
    image = Image.fromarray(np.ascontiguousarray(hr.transpose(1, 2, 0)))
    expected = np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(reduce(hr[None], COLOUR)[0], expected)


def test_reduced_images_stay_below_the_models_levels():
    edge = np.zeros((1, 3, 12, 12), np.uint8)
    edge[..., :6] = 199  # bicubic overshoots at an edge
    assert reduce(edge, PRSRConfig(scale=2)).max() > 199
    assert reduce(edge, PRSRConfig(scale=2, levels=200)).max() == 199


def test_few_levels_are_spaced_evenly_and_stay_below_their_number():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(1, 256)).convert("RGB")
    values = to_array(ramp, TINY)[0, 0]
    assert values.min() == 0
    assert values.max() == TINY.levels - 1
    assert np.array_equal(np.unique(values), np.arange(TINY.levels))
    assert np.array_equal(to_array(to_pil(to_array(ramp, TINY), TINY), TINY)[0, 0], values)
    edges = np.zeros((1, 3, 6, 6), np.uint8)
    edges[..., ::2] = TINY.levels - 1
    assert reduce(edges, TINY).max() < TINY.levels


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "I;16", "CMYK", "LA"])
def test_every_image_mode_is_read(tmp_path, mode, noise_image):
    source = noise_image(40, 40, "RGB")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 257)
    else:
        image = source.convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    assert high_resolution(read_image(path, COLOUR), COLOUR).shape == (3, 32, 32)
    assert high_resolution(read_image(path, DIGITS), DIGITS).shape == (1, 28, 28)


def test_images_are_read_the_right_way_up(tmp_path, noise_image):
    landscape = noise_image(40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90°
    landscape.save(tmp_path / "phone.png", exif=exif)
    upright = np.asarray(landscape.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(np.asarray(read_image(tmp_path / "phone.png", COLOUR)), upright)


def test_images_from_files_and_from_pillow_give_the_same_array(tmp_path, noise_image):
    deep = Image.fromarray(np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8))
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    for image in (deep, clear, noise_image(8, 8)):
        image.save(tmp_path / "image.png")
        from_file = to_array(read_image(tmp_path / "image.png", COLOUR), COLOUR)
        assert np.array_equal(to_array(image, COLOUR), from_file)


def test_transparency_is_composited_on_white(tmp_path):
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (high_resolution(read_image(tmp_path / "clear.png", COLOUR), COLOUR) == 255).all()


def test_sixteen_bit_images_are_scaled_to_eight_bits(tmp_path):
    ramp = np.linspace(0, 65535, 40 * 40).astype(np.uint16).reshape(40, 40)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    values = np.asarray(read_image(tmp_path / "deep.png", DIGITS))
    assert np.abs(values.astype(int) - ramp // 257).max() <= 1


def test_a_narrow_image_is_cropped_in_the_middle(noise_image):
    assert centre_crop(noise_image(100, 10), 1, 1).size == (10, 10)
    assert centre_crop(noise_image(1, 50), 4, 4).size == (1, 1)
