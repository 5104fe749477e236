"""The build script of the cartoon faces, with a stand-in for Node.js."""

import subprocess
import sys

import numpy as np
import pytest
from rich.progress import Progress

from examples.faces import build as faces

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
    """A stand-in for Node.js; all pixels of image i are (i, length of the split's name, 7)."""
    program = tmp_path / "bin" / "node"
    program.parent.mkdir()
    program.write_text(RENDERER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(faces, "CHUNK", 3)


@pytest.mark.parametrize("workers", [1, 3])
def test_faces_depend_on_split_and_index_only(renderer, tmp_path, workers):
    for split, count in (("test", 7), ("train", 6)):
        faces.build(split, count, tmp_path / "set.npy", workers, Progress(disable=True))
        drawn = np.load(tmp_path / "set.npy")
        assert drawn.dtype == np.uint8
        assert drawn.shape == (count, 3, 32, 32)
        assert [tuple(p[:, 0, 0]) for p in drawn] == [(i, len(split), 7) for i in range(count)]
        assert (drawn == drawn[:, :, :1, :1]).all()


def test_a_failed_build_keeps_the_old_file(renderer, tmp_path):
    path = tmp_path / "set.npy"
    faces.build("test", 2, path, 1, Progress(disable=True))
    before = path.read_bytes()
    with pytest.raises(subprocess.CalledProcessError):
        faces.build("broken", 7, path, 2, Progress(disable=True))
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"bin", "set.npy"}
