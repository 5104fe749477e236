"""The data sets of a training run: training images, and validation images given or held out."""

from __future__ import annotations

from pathlib import Path

from prsr.config import PRSRConfig
from prsr.data.dataset import SuperResolutionImages
from prsr.training.augmentation import check_size

HELD_OUT_SHARE = 20
"""Without validation data, one image in this many is held out for validation."""

MAX_HELD_OUT = 2000
"""Largest number of images held out."""


def open_datasets(
    data: Path,
    validation: Path | None,
    config: PRSRConfig,
    *,
    augment: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> tuple[SuperResolutionImages, SuperResolutionImages]:
    """The training images and the validation images of a run.

    Args:
        data: training images, a folder or an array file.
        validation: validation images, in the same form; None to hold out a part of ``data``.
        config: of the model.
        augment: whether training images may be larger than the model's, to be cropped.
        seed: decides which images are held out.
        progress: whether to show progress bars.

    Raises:
        FileNotFoundError: a path does not exist, or a folder contains no image.
        ValueError: a file cannot be read, its images do not fit the model, or there are too few to
            hold some out.
    """
    training = SuperResolutionImages.open(data, config, any_size=augment, progress=progress)
    if augment:
        check_size(training, validated=validation is not None)
    if validation is None:
        held_out = min(MAX_HELD_OUT, max(1, len(training) // HELD_OUT_SHARE))
        training, held = training.split(held_out, seed)
        return training, held
    return training, SuperResolutionImages.open(validation, config, progress=progress)
