"""Remove metadata that Pillow cannot read from image files.

Pillow rejects a whole file because of an oversized text chunk or a damaged EXIF block.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from PIL import Image

Splitter = Callable[[bytes], Iterator[tuple[bytes, bool]]]
Builder = Callable[[bytes], bytes]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"

PNG_PIXELS = frozenset({b"tRNS"})
"""Ancillary chunks that affect pixels."""

JPEG_PIXELS = frozenset({0xE0, 0xEE})
"""Application segments that affect pixels: JFIF and Adobe."""


def repaired(file: BinaryIO) -> Iterator[bytes]:
    """Repaired versions of an image file: without unreadable metadata, then without any metadata.

    This handles PNG, JPEG and AVIF; in other common formats, metadata does not prevent decoding.

    Args:
        file: of any format, open, at its beginning.

    Yields:
        The content of a repaired file; nothing if there is no metadata to remove.
    """
    head = file.read(12)
    if head.startswith(PNG_SIGNATURE):
        split: Splitter = png_chunks
        wrap: Builder = png_with
    elif head.startswith(JPEG_START):
        split, wrap = jpeg_segments, jpeg_with
    elif head[4:8] == b"ftyp":
        yield without_exif_item(head + file.read())
        return
    else:
        return
    pieces = list(split(head + file.read()))
    good = [each for each in pieces if not each[1] or is_readable(wrap(each[0]))]
    if len(good) < len(pieces):
        yield b"".join(piece for piece, _ in good)
    if any(is_metadata for _, is_metadata in good):
        yield b"".join(piece for piece, is_metadata in good if not is_metadata)


def is_readable(data: bytes) -> bool:
    """Whether Pillow can read an image file and its EXIF block."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            image.getexif()
    except Exception:  # Pillow's decoders raise errors of many types
        return False
    return True


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """The signature and the chunks of a PNG file, each with whether it is metadata."""
    yield data[:8], False
    position = 8
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        is_metadata = kind[:1].islower() and kind not in PNG_PIXELS
        yield data[position : position + 12 + length], is_metadata
        position += 12 + length


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    ends = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(kind + content))
    return ends[0] + kind + content + ends[1]


def png_with(chunk: bytes) -> bytes:
    """A PNG file of one pixel that contains a chunk."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixel = png_chunk(b"IDAT", zlib.compress(b"\0\0"))
    return PNG_SIGNATURE + head + chunk + pixel + png_chunk(b"IEND", b"")


def jpeg_segments(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """The segments of a JPEG file and then its pixel data, each with whether it is metadata."""
    yield data[:2], False
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] not in (
        b"\xda",
        b"\xd9",
        b"",
    ):
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        marker = data[position + 1]
        is_metadata = (0xE0 <= marker <= 0xEF and marker not in JPEG_PIXELS) or marker == 0xFE
        yield data[position:end], is_metadata
        position = end
    yield data[position:], False


def jpeg_with(segment: bytes) -> bytes:
    """A JPEG file of one pixel that contains a segment."""
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "JPEG")
    return JPEG_START + segment + file.getvalue()[2:]


def without_exif_item(data: bytes) -> bytes:
    """An AVIF file whose EXIF item has been renamed to a type that decoders ignore."""
    position = 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if length < 8:
            break
        if data[position + 4 : position + 8] == b"meta":
            items = data[position : position + length].replace(b"Exif", b"skip")
            return data[:position] + items + data[position + length :]
        position += length
    return data
