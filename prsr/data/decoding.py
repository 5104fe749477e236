"""Decode image files with Pillow to 8 bits per channel, upright, in sRGB, on white.

Damaged metadata never prevents decoding: an image whose EXIF, text or colour profile is unreadable
is decoded as if it had none.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms

from prsr.data.repair_metadata import repaired

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that turns an image upright, by the EXIF tag ``Orientation``."""

SIXTEEN_BIT_FORMATS = frozenset({"PNG", "PPM"})
"""File formats whose images in Pillow's mode "I" have levels 0 … 65535."""

WHITE_IS_ZERO = 0
"""A value of TIFF's tag ``PhotometricInterpretation``."""

PROFILED = {
    "RGB": (("RGB", "RGBA", "RGBa", "RGBX", "P", "PA"), "RGB"),
    "GRAY": (("L", "LA"), "L"),
    "CMYK": (("CMYK",), "CMYK"),
}
"""For each colour space of a profile: image modes it applies to, and the mode it converts."""


@contextmanager
def no_warnings() -> Iterator[None]:
    """Suppress Pillow's warnings about large images and unusual metadata, but not its errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(source: str | Path | BinaryIO, mode: str) -> Image.Image:
    """Decode an image file, given by its path or open, to :func:`plain`; raises Pillow's errors."""
    if isinstance(source, (str, Path)):
        with open(source, "rb") as file:
            return decode(file, mode)
    try:
        with Image.open(source) as image:
            return plain(image, mode)
    except Exception:  # Pillow's decoders raise errors of many types
        source.seek(0)
        for data in repaired(source):
            with suppress(Exception), Image.open(io.BytesIO(data)) as image:
                return plain(image, mode)
        raise


def plain(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image to ``mode``, "L" or "RGB": upright, 8 bits per channel, sRGB, on white.

    The result has no EXIF or colour profile. An image that is plain already is returned unchanged.

    Raises:
        ValueError: the mode of the image does not define the range of its values.
    """
    image.load()
    if image.mode == mode and type(image) is Image.Image and not image.info:
        return image
    turn = TURNS.get(orientation(image))
    flat = on_white(in_srgb(eight_bit(image)))
    if flat.mode == "LAB":  # Pillow converts LAB only to RGB
        flat = flat.convert("RGB")
    flat = flat.convert(mode)
    flat.info = {}
    return flat if turn is None else flat.transpose(turn)


def orientation(image: Image.Image) -> int:
    """The orientation of a loaded image by EXIF or XMP; 1 without a valid value."""
    try:
        value: Any = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata raises errors of many types
        bare = image.copy()
        for key in ("exif", "Raw profile type exif"):
            bare.info.pop(key, None)
        try:
            value = bare.getexif().get(ExifTags.Base.Orientation, 1)
        except Exception:
            return 1
    return value if isinstance(value, int) else 1


def eight_bit(image: Image.Image) -> Image.Image:
    """Convert an image to 8 bits per channel; 16-bit grey levels are scaled, where Pillow clips.

    Raises:
        ValueError: the mode of the image does not define the range of its values.
    """
    deep = image.mode.startswith("I;16")
    if image.mode == "F" or (image.mode == "I" and image.format not in SIXTEEN_BIT_FORMATS):
        raise ValueError(
            f"an image of mode {image.mode} does not define which value is white: convert it to 8 "
            "or 16 bits per channel first"
        )
    if not deep and image.mode != "I":
        return image
    photometric = getattr(image, "tag_v2", {}).get(262)
    if photometric == WHITE_IS_ZERO:  # Pillow inverts these in 8 bits, but not in 16
        raise ValueError("a 16-bit TIFF image in which 0 is white cannot be read")
    values = np.asarray(image)
    scaled = Image.fromarray((values // 257).clip(0, 255).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    if profile := image.info.get("icc_profile"):
        scaled.info["icc_profile"] = profile
    return scaled


def in_srgb(image: Image.Image) -> Image.Image:
    """Convert an 8-bit image to sRGB, if it has a readable colour profile."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        modes, mode = PROFILED[source.profile.xcolor_space.strip()]
        if image.mode not in modes:
            return image
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
        colours = ImageCms.profileToProfile(
            image.convert(mode), source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except Exception:  # a damaged or unknown profile, or Pillow lacks littleCMS
        return image
    assert colours is not None  # because inPlace is false
    if alpha is not None:
        colours.putalpha(alpha)
    return colours


def on_white(image: Image.Image) -> Image.Image:
    """Composite an image with transparency on white."""
    if not image.has_transparency_data:
        return image
    if image.mode == "La":  # Pillow converts La only to LA
        image = image.convert("LA")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
