"""``prsr evaluate --save-images`` writes the folders of a study."""

import numpy as np
from PIL import Image

from prsr.study.storage import Study


def test_a_study_can_be_created_from_the_folders_that_evaluate_writes(
    command, models, data, tmp_path
):
    folder, studies = tmp_path / "images", tmp_path / "studies"
    arguments = ("evaluate", "--data", data, "--model", models["recursive"])
    arguments += (
        "--temperature",
        1,
        "--temperature",
        0.5,
        "--save-images",
        folder,
        "--out",
        tmp_path / "out",
    )
    code, _, errors = command(*arguments, "--baseline", "bicubic", "--samples", 1)
    assert (code, errors) == (0, "")
    names = ["bicubic", "real", "recursive, temperature 0.5", "recursive, temperature 1"]
    assert sorted(path.name for path in folder.iterdir()) == names
    pixels = np.load(data)
    for index, truth in enumerate(pixels):
        saved = np.asarray(Image.open(folder / "real" / f"{index:06}.png"))
        assert np.array_equal(saved, truth.transpose(1, 2, 0))
    assert command(*arguments)[0] == 2  # the folder is not empty
    code, _, errors = command(
        *("study", "new", "one", "--real", folder / "real", "--studies", studies),
        *("--method", f"prsr={folder / names[2]}", "--method", f"bicubic={folder / names[0]}"),
        *("--per-method", 2, "--catch", 1, "--scale", 2),
    )
    assert (code, errors) == (0, "")
    assert Study(studies, "one").methods == ["prsr", "bicubic"]
