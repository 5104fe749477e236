"""Contact sheets: images in a grid under column headings, drawn by Pillow."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

CELL, GAP, HEADING = 96, 6, 22
"""Width of a column, gap between cells and height of the headings, in pixels."""

TALLEST = 8
"""The largest height of a cell, as a multiple of its width."""


def sheet_size(rows: int, columns: int, proportions: float, cell: int = CELL) -> tuple[int, int]:
    """Width and height of a contact sheet in pixels.

    Args:
        rows: number of rows of images.
        columns: number of columns.
        proportions: the largest ratio of height to width among the images.
        cell: width of a column in pixels.
    """
    height = round(cell * min(proportions, TALLEST))
    return GAP + columns * (cell + GAP), HEADING + rows * (height + GAP)


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]], headings: Sequence[str], cell: int = CELL
) -> Image.Image:
    """Draw images in a grid under headings, each resized to the width ``cell``.

    Images are enlarged without smoothing, so that their pixels are visible. An image that is more
    than :data:`TALLEST` times as high as wide is drawn narrower.

    Args:
        rows: the images of each row, one per heading.
        headings: one per column.
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
            proportion = image.height / image.width
            width = max(1, round(cell * min(1, TALLEST / proportion)))
            shape = (width, max(1, min(height, round(width * proportion))))
            enlarged = image.width <= width
            filter = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
            resized = image.resize(shape, filter)
            sheet.paste(resized, (GAP + j * (cell + GAP), HEADING + i * (height + GAP)))
    return sheet
