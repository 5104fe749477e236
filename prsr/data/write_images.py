"""Write image files: checks before the work, and provenance metadata in each file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from prsr.data.decoding import no_warnings
from prsr.utils.argument_checks import check_fits
from prsr.utils.files import check_file, replacing

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})

EXIF_SUFFIXES = frozenset({".avif", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"})

DOCUMENT_SUFFIXES = frozenset({".pdf", ".svg", ".eps", ".ps"})
"""Of figures, whose creator is named in the text of the file."""

LONGEST_SIDES = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383, ".gif": 65535}
"""The largest side in pixels of formats whose limit a contact sheet may exceed."""

PROVENANCE = "prsr"
"""The metadata keyword of provenance texts."""

CREATOR = re.compile(rb"(?:/Creator \(|<dc:title>|%%Creator: )" + f"{PROVENANCE}: (\\w+)".encode())


def check_writable(path: Path, *, overwrite: bool = True) -> None:
    """Check that an image can be written to ``path``, as far as possible without writing it.

    Args:
        path: of the file.
        overwrite: whether it may replace a file that prsr has not written.

    Raises:
        FileExistsError: it would replace such a file.
        ValueError: the suffix is not that of an image format.
        OSError: the file cannot be written; see :func:`prsr.utils.files.check_file`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{path}: the name must have an image suffix ({', '.join(sorted(SUFFIXES))})"
        )
    check_file(path)
    check_not_foreign(path, overwrite)


def check_not_foreign(path: Path, overwrite: bool) -> None:
    """Check that writing to ``path`` replaces no foreign file, or that it is allowed to.

    Raises:
        FileExistsError: it would replace a file without prsr's provenance metadata.
    """
    if path.exists() and not overwrite and provenance_of(path) is None:
        suffix = path.suffix.lower()
        known = suffix in EXIF_SUFFIXES | DOCUMENT_SUFFIXES | {".png", ".gif"}
        reason = (
            "was not written by prsr"
            if known
            else f"prsr cannot recognise {suffix} files as its own"
        )
        raise FileExistsError(
            f"{path} already exists and {reason}: choose another out, or --overwrite to replace it"
        )


def check_size(path: Path, width: int, height: int) -> None:
    """Check that an image of this size in pixels fits in memory and in the file format.

    Raises:
        ValueError: it does not.
    """
    suffix = path.suffix.lower()
    most = LONGEST_SIDES.get(suffix)
    if most is not None and max(width, height) > most:
        raise ValueError(
            f"{path} would be {width}×{height} pixels, and a {suffix} file may have at most "
            f"{most} per side: choose .png, or fewer samples or images"
        )
    check_fits(3 * width * height, f"{path}", torch.device("cpu"))


def save_image(image: Image.Image, path: Path, about: str = "") -> None:
    """Write an image atomically, in the format of the suffix.

    Args:
        image: to write.
        path: of the file.
        about: provenance in ASCII, which :func:`provenance_of` reads. BMP and PPM files cannot
            contain it.

    Raises:
        OSError: the folder is missing or not writable.
        ValueError: the suffix is not that of an image format.
    """
    check_writable(path)
    with replacing(path) as temporary:
        image.save(temporary, **(provenance_options(path, about) if about else {}))


def provenance_options(path: Path, about: str) -> dict[str, Any]:
    """Pillow's options that store a provenance text in a file; see :func:`save_image`."""
    suffix = path.suffix.lower()
    if suffix == ".png":
        text = PngInfo()
        text.add_itxt(PROVENANCE, about)
        return {"pnginfo": text}
    if suffix == ".gif":
        return {"comment": f"{PROVENANCE}: {about}"}
    if suffix in EXIF_SUFFIXES:
        exif = Image.Exif()
        exif[ExifTags.Base.Software] = f"{PROVENANCE}: {about}"
        return {"exif": exif}
    return {}


def provenance_of(path: Path) -> str | None:
    """The provenance text of a file written by prsr; None if there is none."""
    if path.suffix.lower() in DOCUMENT_SUFFIXES:
        # As matplotlib writes the creator to PDF, SVG and PostScript.
        found = re.search(CREATOR, path.read_bytes())
        return found[1].decode() if found else None
    try:
        with no_warnings(), Image.open(path) as image:
            if PROVENANCE in image.info:
                return str(image.info[PROVENANCE])
            comment = image.info.get("comment", b"")
            texts = [
                comment.decode("ascii", "replace") if isinstance(comment, bytes) else str(comment),
                str(image.getexif().get(ExifTags.Base.Software, "")),
            ]
    except Exception:  # Pillow's decoders raise errors of many types
        return None
    prefix = f"{PROVENANCE}: "
    return next((text.removeprefix(prefix) for text in texts if text.startswith(prefix)), None)
