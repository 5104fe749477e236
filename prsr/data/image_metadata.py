"""Image files without the metadata that Pillow cannot read.

Pillow refuses a whole file for a text chunk that is too large or an EXIF block that is damaged.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from PIL import Image

Taken = Callable[[bytes], Iterator[tuple[bytes, bool]]]
Made = Callable[[bytes], bytes]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"

PNG_PIXELS = frozenset({b"tRNS"})
"""Ancillary chunks that say what pixels look like."""

JPEG_PIXELS = frozenset({0xE0, 0xEE})
"""Application segments that say what pixels look like: JFIF and Adobe."""


def repaired(file: BinaryIO) -> Iterator[bytes]:
    """An image file without the metadata that Pillow cannot read, and if it has much, without any.

    PNG, JPEG and AVIF are taken apart; in the other formats that people use, metadata does not keep
    Pillow from the pixels.

    Args:
        file: of any format, open, at its beginning.

    Returns:
        What is left of it, if that is less than all; nothing if there is nothing to leave out.
    """
    head = file.read(12)
    if head.startswith(PNG_SIGNATURE):
        parts: Taken = png_chunks
        file_with: Made = png_with
    elif head.startswith(JPEG_START):
        parts, file_with = jpeg_segments, jpeg_with
    elif head[4:8] == b"ftyp":
        yield without_exif_item(head + file.read())
        return
    else:
        return
    pieces = list(parts(head + file.read()))
    good = [each for each in pieces if not each[1] or is_readable(file_with(each[0]))]
    if len(good) < len(pieces):
        yield b"".join(piece for piece, _ in good)
    if any(is_metadata for _, is_metadata in good):
        yield b"".join(piece for piece, is_metadata in good if not is_metadata)


def is_readable(data: bytes) -> bool:
    """Whether Pillow reads an image file, and its EXIF block."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            image.getexif()
    except Exception:  # of many kinds: Pillow's decoders do not agree on one
        return False
    return True


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """The signature and the chunks of a PNG file, as far as they go; whether each is metadata."""
    yield data[:8], False
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        is_metadata = kind[:1].islower() and kind not in PNG_PIXELS
        yield data[at : at + 12 + length], is_metadata
        at += 12 + length


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    ends = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(kind + content))
    return ends[0] + kind + content + ends[1]


def png_with(chunk: bytes) -> bytes:
    """A PNG file of one pixel with such a chunk."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixel = png_chunk(b"IDAT", zlib.compress(b"\0\0"))
    return PNG_SIGNATURE + head + chunk + pixel + png_chunk(b"IEND", b"")


def jpeg_segments(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """The segments of a JPEG file up to its pixels, and the rest; whether each is metadata."""
    yield data[:2], False
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xda", b"\xd9", b""):
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        marker = data[at + 1]
        is_metadata = (0xE0 <= marker <= 0xEF and marker not in JPEG_PIXELS) or marker == 0xFE
        yield data[at:end], is_metadata
        at = end
    yield data[at:], False


def jpeg_with(segment: bytes) -> bytes:
    """A JPEG file of one pixel with such a segment."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "JPEG")
    return JPEG_START + segment + file.getvalue()[2:]


def without_exif_item(data: bytes) -> bytes:
    """An AVIF file whose EXIF block is of a type that nobody reads."""
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length < 8:
            break
        if data[at + 4 : at + 8] == b"meta":
            items = data[at : at + length].replace(b"Exif", b"skip")
            return data[:at] + items + data[at + length :]
        at += length
    return data
