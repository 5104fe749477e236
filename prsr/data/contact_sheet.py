"""Contact sheets: images in a grid under headings (Pillow)."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

CELL, GAP, HEADING = 96, 6, 22
"""Pixels of a contact sheet: the width of a column, the space between, and above the first row."""

TALLEST = 8
"""Height of a cell of a contact sheet, at most, in widths."""


def sheet_size(rows: int, columns: int, proportions: float, cell: int = CELL) -> tuple[int, int]:
    """Width and height of a contact sheet.

    Args:
        rows: of images.
        columns: likewise.
        proportions: the largest of height to width among the images.
        cell: width of a column in pixels.
    """
    height = round(cell * min(proportions, TALLEST))
    return GAP + columns * (cell + GAP), HEADING + rows * (height + GAP)


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]], headings: Sequence[str], cell: int = CELL
) -> Image.Image:
    """Images in a grid under headings, each brought to the width ``cell``, its pixels visible.

    An image that is more than :data:`TALLEST` times as high as wide is made narrower.

    Args:
        rows: the images of each row, as many as there are headings.
        headings: one for each column.
        cell: width of a column in pixels.
    """
    proportions = max(image.height / image.width for row in rows for image in row)
    height = round(cell * min(proportions, TALLEST))
    size = sheet_size(len(rows), len(headings), proportions, cell)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for column, heading in enumerate(headings):
        draw.text((GAP + column * (cell + GAP), 4), heading, fill="black", font=font)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            tall = image.height / image.width
            width = max(1, round(cell * min(1, TALLEST / tall)))
            shape = (width, max(1, min(height, round(width * tall))))
            small = image.width <= width
            how = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
            shown = image.resize(shape, how)
            sheet.paste(shown, (GAP + j * (cell + GAP), HEADING + i * (height + GAP)))
    return sheet
