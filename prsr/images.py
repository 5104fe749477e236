"""Between images and arrays: reading, reducing, saving, and laying out contact sheets (Pillow)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from prsr.checks import check_fits
from prsr.config import PRSRConfig
from prsr.decoding import decode, plain, quietly
from prsr.files import check_file, replacing

Pixels = NDArray[np.uint8]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})

EXIF_SUFFIXES = frozenset({".jpg", ".jpeg", ".webp", ".tif", ".tiff"})

LONGEST_SIDES = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383, ".gif": 65535}
"""Pixels of a side, where the format or its encoder has a limit that a sheet may meet."""

ABOUT = "prsr"
"""The keyword of what a picture file says of itself."""

CELL, GAP, HEADING = 96, 6, 22
"""Pixels of a contact sheet: the width of a column, the space between, and above the first row."""

TALLEST = 8
"""Height of a cell of a contact sheet, at most, in widths."""


def picture_mode(config: PRSRConfig) -> str:
    """Pillow's mode for pictures of D channels.

    Raises:
        ValueError: D is neither 1 nor 3, so that no picture file can hold it.
    """
    if config.channels not in (1, 3):
        raise ValueError(
            f"picture files have 1 or 3 channels, the model has {config.channels}; use arrays"
        )
    return "L" if config.channels == 1 else "RGB"


def read_picture(path: str | Path, config: PRSRConfig) -> Image.Image:
    """A picture file, decoded, the right way up, in the mode of the model.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read as a picture.
    """
    mode = picture_mode(config)
    try:
        with quietly():
            return decode(path, mode)
    except FileNotFoundError:
        raise
    except Exception as error:  # of many kinds: Pillow's decoders do not agree on one
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


def centre_crop(picture: Image.Image, height: int, width: int) -> Image.Image:
    """The largest part in the middle that has the proportions ``height : width``."""
    scale = min(picture.height / height, picture.width / width)
    crop_h, crop_w = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (picture.height - crop_h) // 2, (picture.width - crop_w) // 2
    return picture.crop((left, top, left + crop_w, top + crop_h))


def high_resolution(picture: Image.Image, config: PRSRConfig) -> Pixels:
    """A picture of any size as a training target: upright, centre crop, then bicubic.

    Returns:
        ``uint8 [D, s·h, s·w]``, values below K.
    """
    height, width = config.scale * config.low_height, config.scale * config.low_width
    cropped = centre_crop(plain(picture, picture_mode(config)), height, width)
    return to_array(cropped.resize((width, height), Image.Resampling.BICUBIC), config)


def to_array(picture: Image.Image, config: PRSRConfig) -> Pixels:
    """A Pillow picture at its own size as ``uint8 [D, H, W]``, grey levels spread over 0 … K−1.

    Raises:
        ValueError: it cannot be decoded, or its mode says nothing of the range of its values.
    """
    pixels = np.asarray(plain(picture, picture_mode(config)))
    channels_first = pixels.reshape(*pixels.shape[:2], config.channels).transpose(2, 0, 1)
    if config.levels == 256:
        return np.ascontiguousarray(channels_first)
    return np.rint(channels_first * ((config.levels - 1) / 255)).astype(np.uint8)


def to_picture(pixels: Pixels, config: PRSRConfig) -> Image.Image:
    """``uint8 [D, H, W]`` as a Pillow picture, levels 0 … K−1 spread over black to white."""
    mode = picture_mode(config)
    shown = np.rint(pixels * (255 / (config.levels - 1))).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(shown[..., 0] if mode == "L" else shown))


def reduce(pixels: Pixels, config: PRSRConfig) -> Pixels:
    """Bicubic reduction by the scale, as the paper makes its inputs.

    Args:
        pixels: ``uint8 [N, D, s·h, s·w]``, values below K.
        config: of the model, for s and K.

    Returns:
        ``uint8 [N, D, h, w]``, values below K.
    """
    n, channels, height, width = pixels.shape
    size = (width // config.scale, height // config.scale)
    low = np.empty((n, channels, size[1], size[0]), np.uint8)
    for source, target in zip(pixels, low, strict=True):
        for plane in range(channels):
            grey = Image.fromarray(np.ascontiguousarray(source[plane]))
            target[plane] = np.asarray(grey.resize(size, Image.Resampling.BICUBIC))
    # Bicubic overshoots at edges; Pillow clips that at 255 only.
    return np.minimum(low, config.levels - 1)


def check_place(path: Path, *, overwrite: bool = True) -> None:
    """A picture can be written to ``path``, as far as can be told before there is one.

    Args:
        path: the file.
        overwrite: whether it may replace a file that prsr has not written.

    Raises:
        FileExistsError: it would replace such a file.
        ValueError: the suffix names no picture format.
        OSError: no file can be written there: see :func:`prsr.files.check_file`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{path}: the name must end like a picture ({', '.join(sorted(SUFFIXES))})"
        )
    check_file(path)
    check_own(path, overwrite)


def check_own(path: Path, overwrite: bool) -> None:
    """There is no file at ``path``, or one that says that prsr wrote it, or it may be replaced.

    Raises:
        FileExistsError: there is one of others.
    """
    if path.exists() and not overwrite and said_of(path) is None:
        raise FileExistsError(
            f"{path} is there already, and nothing in it says that prsr wrote it: --overwrite "
            "replaces it, or choose another out"
        )


def check_size(path: Path, width: int, height: int) -> None:
    """A picture of that size fits in memory, and in a file of the format that the suffix names.

    Raises:
        ValueError: it does not.
    """
    suffix = path.suffix.lower()
    most = LONGEST_SIDES.get(suffix)
    if most is not None and max(width, height) > most:
        raise ValueError(
            f"{path} would be {width}×{height} pixels, and a {suffix} file has sides of {most} at "
            "most: choose .png, or fewer samples or pictures"
        )
    check_fits(3 * width * height, f"{path}", torch.device("cpu"))


def save_picture(picture: Image.Image, path: Path, about: str = "") -> None:
    """Write a picture in one step, in the format that the suffix names.

    Args:
        picture: to write.
        path: the file.
        about: what the file is to say of itself, in ASCII; :func:`said_of` reads it. BMP and PPM
            files have no place for it.

    Raises:
        OSError: the folder is missing or cannot be written.
        ValueError: the suffix names no picture format.
    """
    check_place(path)
    with replacing(path) as temporary:
        picture.save(temporary, **(saying(path, about) if about else {}))


def saying(path: Path, about: str) -> dict[str, Any]:
    """Pillow's options for a file that is to say something of itself; see :func:`save_picture`."""
    suffix = path.suffix.lower()
    if suffix == ".png":
        text = PngInfo()
        text.add_itxt(ABOUT, about)
        return {"pnginfo": text}
    if suffix == ".gif":
        return {"comment": f"{ABOUT}: {about}"}
    if suffix in EXIF_SUFFIXES:
        exif = Image.Exif()
        exif[ExifTags.Base.Software] = f"{ABOUT}: {about}"
        return {"exif": exif}
    return {}


def said_of(path: Path) -> str | None:
    """What a picture file that prsr wrote says of itself; None if it says nothing."""
    try:
        with quietly(), Image.open(path) as picture:
            if ABOUT in picture.info:
                return str(picture.info[ABOUT])
            comment = picture.info.get("comment", b"")
            said = [
                comment.decode("ascii", "replace") if isinstance(comment, bytes) else str(comment),
                str(picture.getexif().get(ExifTags.Base.Software, "")),
            ]
    except Exception:  # of many kinds: Pillow's decoders do not agree on one
        return None
    ours = [text.removeprefix(f"{ABOUT}: ") for text in said if text.startswith(f"{ABOUT}: ")]
    return ours[0] if ours else None


def sheet_size(rows: int, columns: int, proportions: float, cell: int = CELL) -> tuple[int, int]:
    """Width and height of a contact sheet.

    Args:
        rows: of pictures.
        columns: likewise.
        proportions: the largest of height to width among the pictures.
        cell: width of a column in pixels.
    """
    height = round(cell * min(proportions, TALLEST))
    return GAP + columns * (cell + GAP), HEADING + rows * (height + GAP)


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]], headings: Sequence[str], cell: int = CELL
) -> Image.Image:
    """Pictures in a grid under headings, each brought to the width ``cell``, its pixels visible.

    A picture that is more than :data:`TALLEST` times as high as wide is made narrower.

    Args:
        rows: the pictures of each row, as many as there are headings.
        headings: one for each column.
        cell: width of a column in pixels.
    """
    proportions = max(picture.height / picture.width for row in rows for picture in row)
    height = round(cell * min(proportions, TALLEST))
    size = sheet_size(len(rows), len(headings), proportions, cell)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for column, heading in enumerate(headings):
        draw.text((GAP + column * (cell + GAP), 4), heading, fill="black", font=font)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            tall = picture.height / picture.width
            width = max(1, round(cell * min(1, TALLEST / tall)))
            shape = (width, max(1, min(height, round(width * tall))))
            small = picture.width <= width
            how = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
            shown = picture.resize(shape, how)
            sheet.paste(shown, (GAP + j * (cell + GAP), HEADING + i * (height + GAP)))
    return sheet
