"""The contact sheet shows each image at its position."""

from PIL import Image

from prsr.data.contact_sheet import contact_sheet


def test_a_contact_sheet_shows_each_image_in_its_place():
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    sheet = contact_sheet([[red, blue], [blue, red]], ["one", "two"], cell=40)
    colours = [
        [sheet.getpixel((6 + 46 * column + 20, 22 + 46 * row + 20)) for column in range(2)]
        for row in range(2)
    ]
    red, blue = (255, 0, 0), (0, 0, 255)
    assert colours == [[red, blue], [blue, red]]
