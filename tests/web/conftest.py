"""A small study for the tests of the web application."""

import numpy as np
import pytest
from PIL import Image

from prsr.study.folders import read_inputs
from prsr.study.storage import Settings, Study, create_study, study_path

SETTINGS = Settings("Which one is a photograph?", 300, per_method=4, catch=2, seed=7)


def write_images(folder, names, seed):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{name}.png")


@pytest.fixture
def folders(tmp_path):
    """Folders of twelve real images and of what two methods made, under odd names."""
    names = [f"{i:02d} Größe 画像 <b>" for i in range(12)]
    for seed, name in enumerate(("real", "good", "bad")):
        write_images(tmp_path / name, names, seed)
    return {name: tmp_path / name for name in ("real", "good", "bad")}


@pytest.fixture
def studies(tmp_path, folders):
    """A folder with the study ``faces``."""
    methods = {name: folders[name] for name in ("good", "bad")}
    folder = tmp_path / "studies"
    folder.mkdir()
    inputs = read_inputs(folders["real"], methods, 4)
    create_study(study_path(folder, "faces"), SETTINGS, list(methods), inputs)
    return folder


@pytest.fixture
def study(studies):
    return Study(studies, "faces")
