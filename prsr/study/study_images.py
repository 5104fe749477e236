"""The images of a study from folders: one of real images, one for each method, matched by name."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from prsr.config import PRSRConfig
from prsr.data.find_files import find_images
from prsr.data.image_arrays import Pixels, read_image, reduce, to_array, to_pil
from prsr.sampling.interpolation import Bicubic
from prsr.study.storage import StudyInput
from prsr.utils.terminal_messages import printable

LONGEST_SIDE = 512
"""Pixels; both images of a pair are part of the page that shows them."""


def read_inputs(real: Path, methods: Mapping[str, Path], scale: int) -> list[StudyInput]:
    """Read the images of a study; those of one input have one name, apart from the suffix.

    Args:
        real: folder of the photographs, in sRGB colours; any image file.
        methods: folder of generated images by name of the method.
        scale: by which the methods enlarged; the bicubic images of catch trials are the real ones
            reduced and enlarged by it.

    Raises:
        FileNotFoundError: a folder is missing, or holds no image.
        ValueError: the folders hold different names, an image cannot be read, or has another size
            than the real one or one that cannot be used.
    """
    config = PRSRConfig(scale=scale)
    originals = by_stem(real)
    made = {name: by_stem(folder) for name, folder in methods.items()}
    for name, files in made.items():
        if different := sorted(originals.keys() ^ files.keys()):
            place = methods[name] if different[0] in originals else real
            raise ValueError(
                f"{real} and {methods[name]} must hold images of the same names, but "
                f"{printable(different[0])} is not in {place}"
            )
    inputs = []
    for stem, path in sorted(originals.items()):
        pixels = read(path, config)
        height, width = pixels.shape[1:]
        if height % scale or width % scale or max(height, width) > LONGEST_SIDE:
            raise ValueError(
                f"{path} must have sides that are multiples of {scale} (the scale) and at most "
                f"{LONGEST_SIDE} pixels, got {width}×{height}"
            )
        generated = {}
        for name, files in made.items():
            enlarged = read(files[stem], config)
            if enlarged.shape != pixels.shape:
                raise ValueError(
                    f"{files[stem]} must have the size of {path}, {width}×{height}, got "
                    f"{enlarged.shape[2]}×{enlarged.shape[1]}"
                )
            generated[name] = as_png(enlarged, config)
        low = torch.from_numpy(reduce(pixels[None], config))
        catch = Bicubic(config).enlarge(low)[0].numpy()
        inputs.append(StudyInput(stem, as_png(pixels, config), as_png(catch, config), generated))
    return inputs


def by_stem(folder: Path) -> dict[str, Path]:
    """The image files of a folder by their path in it, without the suffix.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: two have one name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    found: dict[str, Path] = {}
    for path in find_images([folder]):
        stem = printable(str(path.relative_to(folder).with_suffix("")))
        if stem in found:
            raise ValueError(f"{found[stem]} and {path} have one name: remove one")
        found[stem] = path
    return found


def read(path: Path, config: PRSRConfig) -> Pixels:
    """An image file as ``uint8 [3, H, W]``."""
    return to_array(read_image(path, config), config)


def as_png(pixels: Pixels, config: PRSRConfig) -> bytes:
    """``uint8 [3, H, W]`` as a PNG file without metadata, so that it does not reveal its origin."""
    file = io.BytesIO()
    image: Image.Image = to_pil(np.ascontiguousarray(pixels), config)
    image.save(file, "PNG")
    return file.getvalue()
