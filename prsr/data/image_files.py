"""Writing image files: checks before the work, and a note in each file that prsr wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from prsr.data.decoding import quietly
from prsr.utils.argument_checks import check_fits
from prsr.utils.files import check_file, replacing

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})

EXIF_SUFFIXES = frozenset({".jpg", ".jpeg", ".webp", ".tif", ".tiff"})

LONGEST_SIDES = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383, ".gif": 65535}
"""Pixels of a side, where the format or its encoder has a limit that a sheet may meet."""

ABOUT = "prsr"
"""The keyword of what an image file says of itself."""


def check_place(path: Path, *, overwrite: bool = True) -> None:
    """An image can be written to ``path``, as far as can be told before there is one.

    Args:
        path: the file.
        overwrite: whether it may replace a file that prsr has not written.

    Raises:
        FileExistsError: it would replace such a file.
        ValueError: the suffix names no image format.
        OSError: no file can be written there: see :func:`prsr.utils.files.check_file`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: the name must end like an image ({', '.join(sorted(SUFFIXES))})")
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
    """An image of that size fits in memory, and in a file of the format that the suffix names.

    Raises:
        ValueError: it does not.
    """
    suffix = path.suffix.lower()
    most = LONGEST_SIDES.get(suffix)
    if most is not None and max(width, height) > most:
        raise ValueError(
            f"{path} would be {width}×{height} pixels, and a {suffix} file has sides of {most} at "
            "most: choose .png, or fewer samples or images"
        )
    check_fits(3 * width * height, f"{path}", torch.device("cpu"))


def save_image(image: Image.Image, path: Path, about: str = "") -> None:
    """Write an image in one step, in the format that the suffix names.

    Args:
        image: to write.
        path: the file.
        about: what the file is to say of itself, in ASCII; :func:`said_of` reads it. BMP and PPM
            files have no place for it.

    Raises:
        OSError: the folder is missing or cannot be written.
        ValueError: the suffix names no image format.
    """
    check_place(path)
    with replacing(path) as temporary:
        image.save(temporary, **(saying(path, about) if about else {}))


def saying(path: Path, about: str) -> dict[str, Any]:
    """Pillow's options for a file that is to say something of itself; see :func:`save_image`."""
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
    """What an image file that prsr wrote says of itself; None if it says nothing."""
    try:
        with quietly(), Image.open(path) as image:
            if ABOUT in image.info:
                return str(image.info[ABOUT])
            comment = image.info.get("comment", b"")
            said = [
                comment.decode("ascii", "replace") if isinstance(comment, bytes) else str(comment),
                str(image.getexif().get(ExifTags.Base.Software, "")),
            ]
    except Exception:  # of many kinds: Pillow's decoders do not agree on one
        return None
    ours = [text.removeprefix(f"{ABOUT}: ") for text in said if text.startswith(f"{ABOUT}: ")]
    return ours[0] if ours else None
