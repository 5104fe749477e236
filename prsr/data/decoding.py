"""The one place that decodes image files (Pillow): pixels in 8 bits, upright, in sRGB, on white.

Metadata never costs pixels: an image whose EXIF, text or colour profile cannot be read is decoded
as if that part were not there.
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

from prsr.data.image_metadata import repaired

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by the EXIF tag ``Orientation``."""

SIXTEEN_BIT_FORMATS = frozenset({"PNG", "PPM"})
"""File formats whose images in Pillow's mode "I" have levels 0 … 65535."""

WHITE_IS_ZERO = 0
"""A value of TIFF's tag ``PhotometricInterpretation``."""

PROFILED = {
    "RGB": (("RGB", "RGBA", "RGBa", "RGBX", "P", "PA"), "RGB"),
    "GRAY": (("L", "LA"), "L"),
    "CMYK": (("CMYK",), "CMYK"),
}
"""The modes of images that a colour profile of a kind can belong to, and the one it converts."""


@contextmanager
def quietly() -> Iterator[None]:
    """No warnings from Pillow, about large images or odd metadata; its errors remain errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(source: str | Path | BinaryIO, mode: str) -> Image.Image:
    """An image file, by its path or open, as :func:`plain` makes it; fails as Pillow does."""
    if isinstance(source, (str, Path)):
        with open(source, "rb") as file:
            return decode(file, mode)
    try:
        with Image.open(source) as image:
            return plain(image, mode)
    except Exception:  # of many kinds: Pillow's decoders do not agree on one
        source.seek(0)
        for data in repaired(source):
            with suppress(Exception), Image.open(io.BytesIO(data)) as image:
                return plain(image, mode)
        raise


def plain(image: Image.Image, mode: str) -> Image.Image:
    """An image in ``mode``, "L" or "RGB": upright, 8 bits a channel, sRGB, laid on white.

    Its pixels are all that it has: no EXIF, no colour profile. A plain image is returned as it is.

    Raises:
        ValueError: its mode says nothing of the range of its values.
    """
    image.load()
    if image.mode == mode and type(image) is Image.Image and not image.info:
        return image
    turn = TURNS.get(orientation(image))
    flat = on_white(in_srgb(eight_bit(image)))
    if flat.mode == "LAB":  # which Pillow converts to RGB alone
        flat = flat.convert("RGB")
    flat = flat.convert(mode)
    flat.info = {}
    return flat if turn is None else flat.transpose(turn)


def orientation(image: Image.Image) -> int:
    """The EXIF tag ``Orientation`` of a loaded image, or XMP's; 1 without a valid one."""
    try:
        value: Any = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of many kinds, as the parts that can be damaged
        bare = image.copy()
        for key in ("exif", "Raw profile type exif"):
            bare.info.pop(key, None)
        try:
            value = bare.getexif().get(ExifTags.Base.Orientation, 1)
        except Exception:
            return 1
    return value if isinstance(value, int) else 1


def eight_bit(image: Image.Image) -> Image.Image:
    """An image in 8 bits a channel; deep grey levels are scaled, where Pillow would cut them off.

    Raises:
        ValueError: its mode says nothing of the range of its values.
    """
    deep = image.mode.startswith("I;16")
    if image.mode == "F" or (image.mode == "I" and image.format not in SIXTEEN_BIT_FORMATS):
        raise ValueError(
            f"an image of mode {image.mode} does not say which of its values is white: convert it "
            "to 8 or 16 bits a channel first"
        )
    if not deep and image.mode != "I":
        return image
    photometric = getattr(image, "tag_v2", {}).get(262)
    if photometric == WHITE_IS_ZERO:  # which Pillow inverts for 8 bits, but not for 16
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
    """An image of 8 bits a channel in sRGB, if it has a readable colour profile."""
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
    except Exception:  # a damaged profile, one of another kind, or a Pillow without littleCMS
        return image
    assert colours is not None  # as a copy was asked for
    if alpha is not None:
        colours.putalpha(alpha)
    return colours


def on_white(image: Image.Image) -> Image.Image:
    """An image without its transparency, laid on white."""
    if not image.has_transparency_data:
        return image
    if image.mode == "La":  # which Pillow converts to LA alone
        image = image.convert("LA")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
