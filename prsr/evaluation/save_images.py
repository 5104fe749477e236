"""Writes samples as folders of image files: one for each method, and one of the real images."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from prsr.data.dataset import SuperResolutionImages
from prsr.data.image_arrays import to_pil
from prsr.data.write_images import save_image
from prsr.evaluation.compare import describe_method

REAL = "real"
"""The folder of the real images."""


class ImageFolders:
    """Folders of PNG files; those of one input have one name.

    Args:
        folder: to make them in; new or empty.
        images: that methods are compared on.

    Raises:
        FileExistsError: ``folder`` holds something already.
    """

    def __init__(self, folder: Path, images: SuperResolutionImages) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty: choose another folder for the images")
        self.folder, self.images = folder, images

    def save_real(self) -> None:
        """Write the real images."""
        for index in range(len(self.images)):
            self._save(REAL, index, self.images[index][1])

    def save(self, label: str, temperature: float | None, start: int, drawn: Tensor) -> None:
        """Write the first sample of each of some inputs.

        Args:
            label: of the method.
            temperature: of the samples; None for a method without one.
            start: index of the first input.
            drawn: ``uint8 [n, S, D, H, W]``.
        """
        name = describe_method(label, temperature).replace("/", "-")
        for index, samples in enumerate(drawn, start):
            self._save(name, index, samples[0])

    def _save(self, name: str, index: int, pixels: Tensor) -> None:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        image = to_pil(pixels.numpy(), self.images.config)
        save_image(image, folder / f"{index:06}.png", about=REAL if name == REAL else "sample")
