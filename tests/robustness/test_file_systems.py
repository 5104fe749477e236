"""File systems without locks, shared memory maps, file modes or fsync."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prsr import PRSRConfig
from prsr.data.convert import convert
from prsr.data.dataset import read_array
from prsr.data.sources import image_folder
from prsr.utils.files import replacing

TINY = PRSRConfig.preset("tiny")


@pytest.fixture(scope="module")
def poor(tmp_path_factory):
    """The environment of a process for which every file system lacks them."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler, to override calls of a process")
    library = tmp_path_factory.mktemp("poor") / "poor.so"
    source = Path(__file__).with_name("poor_file_system.c")
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


def test_commands_work_without_locks_shared_maps_modes_and_fsync(poor, photos, tmp_path):
    array, run = tmp_path / "set.npy", tmp_path / "run"
    commands = [
        ("data", "folder", photos, "--out", array, "--preset", "tiny"),
        (
            "train",
            "--data",
            array,
            "--preset",
            "tiny",
            "--steps",
            1,
            "--out",
            run,
            "--batch-size",
            1,
        ),
        ("sample", array, "-o", tmp_path / "out", "--model", run / "model"),
    ]
    for command in commands:
        call = [sys.executable, "-m", "prsr", *map(str, command)]
        done = subprocess.run(call, env=poor, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), command
    assert np.load(array).shape == (3, 3, 6, 6)
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["set.npy"]


def refusing(code):
    def call(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_locks_are_optional(photos, tmp_path, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", refusing(code))
    assert convert(image_folder(photos), tmp_path / "set.npy", TINY).written == 3
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["set.npy"]


def test_a_failed_fsync_is_reported_and_keeps_the_old_file(photos, tmp_path, monkeypatch):
    (tmp_path / "a").write_text("before")
    for code in (errno.EIO, errno.ENOSPC):
        monkeypatch.setattr(os, "fsync", refusing(code))
        with pytest.raises(OSError, match=os.strerror(code)):
            convert(image_folder(photos), tmp_path / "set.npy", TINY)
        with pytest.raises(OSError, match=os.strerror(code)), replacing(tmp_path / "a") as new:
            new.write_text("after")
    assert (tmp_path / "a").read_text() == "before"


def test_an_array_that_cannot_be_mapped_is_read_into_memory(tmp_path, monkeypatch):
    path = tmp_path / "set.npy"
    pixels = np.arange(3 * 36, dtype=np.uint8).reshape(1, 3, 6, 6) % 8
    np.save(path, pixels)
    monkeypatch.setattr(np, "memmap", refusing(errno.ENODEV))
    assert np.array_equal(read_array(path, TINY), pixels)
    monkeypatch.setattr(np, "memmap", refusing(errno.EIO))
    with pytest.raises(OSError, match=f"set.npy cannot be read: {os.strerror(errno.EIO)}"):
        read_array(path, TINY)
