"""Intact pixels are read despite bad metadata; levels and colours are right or refused."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from prsr import PRSRConfig
from prsr.data.decoding import TURNS, decode, plain
from prsr.data.image_arrays import high_resolution, read_image, to_array
from prsr.data.repair_metadata import png_chunk
from prsr.sampling.request import as_tensor

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

COLOUR = PRSRConfig.preset("compact")
GREY = PRSRConfig.preset("digits")


def decoded(data, mode="RGB"):
    return np.asarray(decode(io.BytesIO(data), mode))


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def with_chunk(png, kind, content, *, last=False, damaged=False):
    """A PNG file with one more chunk, before or after its pixels."""
    chunk = png_chunk(kind, content)
    if damaged:
        chunk = chunk[:-1] + bytes([chunk[-1] ^ 1])
    at = png.index(b"IEND" if last else b"IDAT") - 4
    return png[:at] + chunk + png[at:]


LARGE = zlib.compress(bytes(3 * 2**20))
PNG_METADATA = {
    "eXIf": (b"eXIf", b"garbage!!"),
    "eXIf that ends too soon": (b"eXIf", b"MM\0*\0\0\0\x08\0\x05\x01"),
    "EXIF that is not hexadecimal": (
        b"tEXt",
        b"Raw profile type exif\0\nexif\n   9\nno hexadecimal",
    ),
    "zTXt": (b"zTXt", b"Comment\0\0" + LARGE),
    "iTXt": (b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
    "iCCP": (b"iCCP", b"profile\0\0" + LARGE),
    "iCCP that is not a profile": (b"iCCP", b"profile\0\0" + zlib.compress(b"no profile")),
    "iTXt that is not UTF-8": (b"iTXt", b"Comment\0\0\0\0\0\xff\xfe"),
    "gAMA that is too short": (b"gAMA", b"\0"),
    "pHYs that is too short": (b"pHYs", b"\0"),
    "cHRM that is too short": (b"cHRM", b"\0"),
    "acTL of no frames": (b"acTL", bytes(8)),
    "fcTL that is too short": (b"fcTL", b"\0"),
}


@pytest.mark.parametrize("name", PNG_METADATA)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("damaged", [False, True])
def test_bad_metadata_of_a_png_leaves_its_pixels_readable(name, last, damaged, noise_image, encode):
    png = encode(noise_image(), "PNG", exif=exif(6))
    expected = np.rot90(np.asarray(noise_image()), -1)
    assert np.array_equal(decoded(png), expected)
    kind, content = PNG_METADATA[name]
    if name in ("eXIf", "eXIf that ends too soon"):  # or it would have two of them
        png, expected = encode(noise_image(), "PNG"), np.asarray(noise_image())
    bad = with_chunk(png, kind, content, last=last, damaged=damaged)
    assert np.array_equal(decoded(bad), expected)


def test_a_png_with_much_text_is_read(noise_image, encode):
    png = encode(noise_image(), "PNG")
    for _ in range(70):  # each is small enough by itself
        png = with_chunk(png, b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**20)))
    assert np.array_equal(decoded(png), np.asarray(noise_image()))


def riff_with_exif(webp, block):
    """A WebP file with its EXIF block replaced."""
    at = webp.index(b"EXIF")
    chunk = b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
    body = webp[8:at] + chunk
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_bad_metadata_of_other_formats_leaves_their_pixels_readable(noise_image, encode):
    webp = encode(noise_image(), "WEBP", lossless=True, exif=exif(3))
    assert np.array_equal(decoded(webp), np.rot90(np.asarray(noise_image()), 2))
    assert np.array_equal(decoded(riff_with_exif(webp, b"garbage!!")), np.asarray(noise_image()))
    block = Image.Exif()
    block[0x0131] = "a program"
    avif = encode(noise_image(), "AVIF", exif=block)
    # The first bytes of the block are its byte order.
    at = avif.rindex(b"II*\0") if b"II*\0" in avif else avif.rindex(b"MM\0*")
    broken = avif[:at] + b"garb" + avif[at + 4 :]
    with pytest.raises((SyntaxError, ValueError)), Image.open(io.BytesIO(broken)):
        pass
    assert np.array_equal(decoded(broken), decoded(encode(noise_image(), "AVIF")))
    jpeg = encode(noise_image(), "JPEG")
    for marker in (0xE1, 0xE2, 0xED, 0xFE):
        for content in (
            b"Exif\0\0garbage",
            b"ICC_PROFILE\0\1",
            b"Photoshop 3.0\x008BIM\4",
            b"MPF\0",
        ):
            segment = struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content
            assert np.array_equal(decoded(jpeg[:2] + segment + jpeg[2:]), decoded(jpeg))


def test_damaged_pixels_are_an_error(noise_image, encode):
    png = encode(noise_image(90, 90), "PNG")
    bad = with_chunk(png, b"zTXt", b"Comment\0\0" + LARGE)
    for data in (bad[: len(bad) // 2], png[:-60], b"no image", b"", png[:8]):
        with pytest.raises(Exception):  # noqa: B017, PT011  (Pillow raises many types)
            decode(io.BytesIO(data), "RGB")


@pytest.mark.parametrize("orientation", range(10))
def test_the_api_and_the_command_line_apply_the_same_orientation(
    tmp_path, orientation, noise_image
):
    upright = np.asarray(noise_image())
    turned = noise_image().transpose(TURNS[orientation]) if orientation in TURNS else noise_image()
    path = tmp_path / "phone.png"
    noise_image().save(path, exif=exif(orientation))
    assert np.array_equal(np.asarray(read_image(path, COLOUR)), np.asarray(turned))
    opened = Image.open(path)
    expected = torch.from_numpy(np.asarray(turned).transpose(2, 0, 1).copy())[None]
    assert torch.equal(as_tensor(opened, COLOUR), expected)
    assert torch.equal(as_tensor([opened, opened], COLOUR)[1:], expected)
    assert np.array_equal(
        high_resolution(opened, COLOUR), high_resolution(read_image(path, COLOUR), COLOUR)
    )
    assert np.array_equal(np.asarray(opened), upright)  # the caller's image is unchanged


def test_an_image_that_needs_no_conversion_is_returned_as_is(noise_image, encode):
    image = plain(Image.open(io.BytesIO(encode(noise_image(), "PNG", exif=exif(6)))), "RGB")
    assert plain(image, "RGB") is image


FLOAT = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
INTEGER = np.linspace(0, 255, 64).astype(np.int32).reshape(8, 8)
DEEP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


@pytest.mark.parametrize("values", [FLOAT, INTEGER, INTEGER * 257])
def test_values_of_unknown_range_are_refused_with_their_mode(tmp_path, values):
    image = Image.fromarray(values)
    image.save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=f"mode {image.mode} does not define which .* is white"):
        to_array(image, GREY)
    with pytest.raises(ValueError, match=f"mode {image.mode} does not define which .* is white"):
        read_image(tmp_path / "a.tif", GREY)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_sixteen_bit_levels_are_scaled_in_files_and_in_the_api(kind, encode):
    data = encode(Image.fromarray(DEEP), kind)
    for values in (decoded(data, "L"), to_array(Image.open(io.BytesIO(data)), GREY)[0]):
        assert np.array_equal(values, DEEP // 257)
    big = Image.frombytes("I;16B", (8, 8), DEEP.astype(">u2").tobytes())
    assert np.array_equal(to_array(big, GREY)[0], DEEP // 257)


def test_a_sixteen_bit_image_in_which_zero_is_white_is_refused(encode):
    data = encode(Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0})
    with pytest.raises(ValueError, match="16-bit TIFF image in which 0 is white"):
        decoded(data, "L")


def test_a_transparent_sixteen_bit_level_becomes_white(encode):
    png = encode(Image.fromarray(DEEP), "PNG")
    data = with_chunk(png, b"tRNS", struct.pack(">H", int(DEEP[0, 0])))
    values = decoded(data, "L")
    assert values[0, 0] == 255
    assert np.array_equal(values.flat[1:], DEEP.flat[1:] // 257)


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"],
)
def test_white_stays_white_in_every_eight_bit_mode(mode):
    if mode == "LAB":
        white = Image.new("LAB", (4, 4), (255, 128, 128))
    elif mode in ("La", "RGBa"):
        white = Image.new({"La": "LA", "RGBa": "RGBA"}[mode], (4, 4), "white").convert(mode)
    else:
        white = Image.new("RGB", (4, 4), "white").convert("L" if mode == "La" else mode)
    for config in (COLOUR, GREY):
        assert (to_array(white, config) >= 254).all()


def swapped_profile():
    """A colour profile that is sRGB with red and green swapped."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
    assert swapped != profile
    return swapped


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_colour_profile_is_applied(mode, encode):
    image = Image.new("RGB", (4, 4), (255, 0, 0)).convert(mode)
    own = decoded(encode(image, "PNG", icc_profile=swapped_profile()))
    assert (np.abs(own.astype(int) - (0, 255, 0)) <= 2).all()
    again = io.BytesIO(encode(image, "PNG", icc_profile=swapped_profile()))
    assert np.array_equal(to_array(Image.open(again), COLOUR).transpose(1, 2, 0), own)


def test_an_srgb_profile_changes_nothing_and_an_unusable_one_is_ignored(noise_image, encode):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile", srgb[:200]):
        data = encode(noise_image(), "PNG", icc_profile=profile)
        assert np.array_equal(decoded(data), np.asarray(noise_image()))
    grey = noise_image().convert("L")
    data = encode(grey, "PNG", icc_profile=swapped_profile())
    assert np.array_equal(decoded(data, "L"), np.asarray(grey))


def test_an_image_is_read_with_warnings_as_errors(tmp_path, noise_image, encode):
    path = tmp_path / "a.png"
    path.write_bytes(with_chunk(encode(noise_image(), "PNG"), b"acTL", bytes(8)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(np.asarray(read_image(path, COLOUR)), np.asarray(noise_image()))
