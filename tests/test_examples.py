"""The builders of data, without what they fetch: formats, notices, and splits that do not meet.

And the model that is grown: it must compute what the small one does.
"""

import dataclasses
import io
import struct
import subprocess
import sys
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress

from examples.digits import build as digits
from examples.faces import build as faces
from examples.faces.grow import grow
from examples.photographs import build as photographs


def test_digits_are_split_by_index_and_take_turns():
    pictures = np.arange(43, dtype=np.uint8).reshape(-1, 1, 1, 1)
    parts = digits.split(pictures)
    assert {name: part[[0, -1]].ravel().tolist() for name, part in parts.items()} == {
        "train": [0, 36],
        "validation": [37, 38],
        "test": [39, 42],
    }
    groups = [np.array(values, np.uint8) for values in ([1, 2, 3], [4], [5, 6])]
    assert digits.taking_turns(groups).tolist() == [1, 4, 5, 2, 6, 3]


RENDERER = """#!{python}
import sys
_, split, first, count = sys.argv[1:]
for i in range(int(first), int(first) + int(count)):
    if split == "broken" and i > 2:
        sys.exit(3)
    sys.stdout.buffer.write(bytes([i, len(split), 7]) * 96 * 96)
"""


@pytest.fixture
def renderer(tmp_path, monkeypatch):
    """In the place of Node.js: picture i of a split is of one colour, (i, letters of it, 7)."""
    program = tmp_path / "bin" / "node"
    program.parent.mkdir()
    program.write_text(RENDERER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(faces, "CHUNK", 3)


@pytest.mark.parametrize("workers", [1, 3])
def test_faces_depend_on_split_and_index_alone(renderer, tmp_path, workers):
    for split, count in (("test", 7), ("train", 6)):
        faces.build(split, count, tmp_path / "set.npy", workers, Progress(disable=True))
        drawn = np.load(tmp_path / "set.npy")
        assert drawn.dtype == np.uint8
        assert drawn.shape == (count, 3, 32, 32)
        assert [tuple(p[:, 0, 0]) for p in drawn] == [(i, len(split), 7) for i in range(count)]
        assert (drawn == drawn[:, :, :1, :1]).all()


def test_faces_that_cannot_be_drawn_leave_what_stood_there(renderer, tmp_path):
    path = tmp_path / "set.npy"
    faces.build("test", 2, path, 1, Progress(disable=True))
    before = path.read_bytes()
    with pytest.raises(subprocess.CalledProcessError):
        faces.build("broken", 7, path, 2, Progress(disable=True))
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"bin", "set.npy"}


def resources(version):
    """A Qt resource file with /a/b.webp, /a/c/d.webp and /e.txt, written by hand."""
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


def test_files_of_a_resource_file_are_read_with_their_paths():
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


def test_windows_are_squares_of_the_photo_and_its_own():
    one = photo("a/one", "")
    taken = photographs.windows(one, 3)
    assert (taken.shape, taken.dtype) == ((3, 3, 32, 32), np.uint8)
    assert np.array_equal(photographs.windows(one, 5)[:3], taken)
    assert not np.array_equal(photographs.windows(photo("a/two", ""), 3), taken)


def test_a_grown_model_computes_the_same_and_learns_on(make_model, make_pictures):
    small = make_model(prior_layers=2, prior_kernel=3, head_channels=7, conditioning_blocks=1)
    large = dataclasses.replace(
        small.config, prior_layers=4, prior_kernel=7, head_channels=16, conditioning_blocks=3
    )
    lr, hr = make_pictures(small.config, 2, 2, 3), make_pictures(small.config, 2, 4, 6)
    grown = grow(small.double(), large).double()
    expected, found = small.eval()(lr, hr), grown.eval()(lr, hr)
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)

    optimiser = torch.optim.SGD(grown.parameters(), lr=1e-3)
    for _ in range(3):  # what is behind zeros is reached once they are none
        optimiser.zero_grad()
        grown.loss(grown(lr, hr), hr).backward()
        optimiser.step()
    for name, parameter in grown.named_parameters():
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("gates", [False, True])
def test_a_model_gains_or_keeps_conditional_gates(make_model, make_pictures, gates):
    small = make_model(prior_layers=2, conditional_gates=gates).double()
    large = dataclasses.replace(small.config, prior_layers=3, conditional_gates=True)
    lr, hr = make_pictures(small.config, 2, 2, 3), make_pictures(small.config, 2, 4, 6)
    grown = grow(small, large).double()
    assert grown.prior.blocks[2].conditional_vertical.weight.count_nonzero() == 0
    for one, other in zip(small(lr, hr), grown(lr, hr), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("change", [{"prior_layers": 1}, {"prior_channels": 64}, {"levels": 16}])
def test_what_cannot_grow_is_told(make_model, change):
    model = make_model(prior_layers=2)
    name = next(iter(change))
    with pytest.raises(ValueError, match=f"{name} cannot go from"):
        grow(model, dataclasses.replace(model.config, **change))
