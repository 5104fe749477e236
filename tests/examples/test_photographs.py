"""The build script of the photographs: resource files, notices, and splits."""

import io
import struct
from zlib import crc32

import numpy as np
from PIL import Image

from examples.photographs import build as photographs


def resources(version):
    """A Qt resource file with /a/b.webp, /a/c/d.webp and /e.txt."""
    names, data, nodes = bytearray(), bytearray(), bytearray()

    def node(name, flags, *rest):
        place = len(names)
        names.extend(struct.pack(">HI", len(name), crc32(name.encode())) + name.encode("utf-16-be"))
        nodes.extend(struct.pack(">IHII", place, flags, *rest))
        nodes.extend(bytes(8 if version > 1 else 0))

    def file(name, content):
        place = len(data)
        data.extend(struct.pack(">I", len(content)) + content)
        node(name, 0, 1, place)

    node("", 2, 2, 1)  # the root: two children from node 1 on
    node("a", 2, 2, 3)
    file("e.txt", b"text")
    file("b.webp", b"first")
    node("c", 2, 1, 5)
    file("d.webp", b"second")
    head = 20 + (4 if version == 3 else 0)
    offsets = (head, head + len(nodes), head + len(nodes) + len(data))
    start = struct.pack(">4s4I", b"qres", version, *offsets) + bytes(head - 20)
    return start + nodes + data + names


def test_files_in_a_resource_file_are_read_with_their_paths():
    for version in (1, 2, 3):
        assert sorted(photographs.files_in(resources(version))) == [
            ("/a/b.webp", b"first"),
            ("/a/c/d.webp", b"second"),
            ("/e.txt", b"text"),
        ]


COPYRIGHT = """Format: some
Source: somewhere

Files: a/b/one.jpg
 a/b/two.jpg
Copyright: 2001 Anna
           2002 Ben
License: public-domain
 It is.
Comment: from
 there

Files: a/b/three.png
Copyright: Cem
License: CC-BY-SA-3.0
"""


def test_notices_are_read_by_file():
    found = photographs.notices(COPYRIGHT)
    assert set(found) == {"a/b/one", "a/b/two", "a/b/three"}
    assert found["a/b/two"] == photographs.Notice(
        "2001 Anna 2002 Ben", "public-domain", "from there"
    )
    assert found["a/b/three"].licence == "CC-BY-SA-3.0"


def photo(name, licence):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "WEBP", lossless=True)
    return photographs.Photo(name, file.getvalue(), photographs.Notice(licence=licence))


def test_only_free_photos_are_held_out():
    free = [
        photo(f"a/{n}", kind) for n, kind in enumerate(("public-domain", "CC0-1.0", "CC-BY-2.0"))
    ]
    others = [photo(f"b/{kind}", kind) for kind in ("CC-BY-SA-3.0", "GPL-3+", "GFDL-NIV-1.2", "")]
    doubtful = [photo("fishes/fish1", "public-domain"), photo("tools/hammer3", "CC0-1.0")]
    parts = photographs.split([*free, *others, *doubtful])
    names = {split: [one.name for one in part] for split, part in parts.items()}
    assert names["test"] == ["a/0", "a/2"]
    assert names["validation"] == ["a/1"]
    assert names["train"] == [one.name for one in [*others, *doubtful]]


def test_crops_are_reproducible_and_differ_between_photos():
    one = photo("a/one", "")
    taken = photographs.random_crops(one, 3)
    assert (taken.shape, taken.dtype) == ((3, 3, 32, 32), np.uint8)
    assert np.array_equal(photographs.random_crops(one, 5)[:3], taken)
    assert not np.array_equal(photographs.random_crops(photo("a/two", ""), 3), taken)
