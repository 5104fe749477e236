"""Read, crop, resize and convert images between Pillow and arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prsr.config import PRSRConfig
from prsr.data.decoding import decode, no_warnings, plain

Pixels = NDArray[np.uint8]


def pillow_mode(config: PRSRConfig) -> str:
    """Pillow's mode for images of D channels.

    Raises:
        ValueError: D is neither 1 nor 3, the numbers of channels of image files.
    """
    if config.channels not in (1, 3):
        raise ValueError(
            f"image files have 1 or 3 channels, the model has {config.channels}; use arrays"
        )
    return "L" if config.channels == 1 else "RGB"


def read_image(path: str | Path, config: PRSRConfig) -> Image.Image:
    """Decode an image file, upright, in the mode of the model.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it cannot be read as an image.
    """
    mode = pillow_mode(config)
    try:
        with no_warnings():
            return decode(path, mode)
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of many types
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def centre_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """The largest centred crop with the proportions ``height : width``."""
    scale = min(image.height / height, image.width / width)
    crop_h, crop_w = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (image.height - crop_h) // 2, (image.width - crop_w) // 2
    return image.crop((left, top, left + crop_w, top + crop_h))


def high_resolution(image: Image.Image, config: PRSRConfig) -> Pixels:
    """Turn an image of any size into a training target: upright, centre crop, bicubic resize.

    Returns:
        ``uint8 [D, s·h, s·w]``, values below K.
    """
    height, width = config.high_size
    cropped = centre_crop(plain(image, pillow_mode(config)), height, width)
    return to_array(cropped.resize((width, height), Image.Resampling.BICUBIC), config)


def to_array(image: Image.Image, config: PRSRConfig) -> Pixels:
    """Convert a Pillow image to ``uint8 [D, H, W]``, its levels scaled to 0 … K−1.

    Raises:
        ValueError: it cannot be decoded, or its mode does not define the range of its values.
    """
    pixels = np.asarray(plain(image, pillow_mode(config)))
    channels_first = pixels.reshape(*pixels.shape[:2], config.channels).transpose(2, 0, 1)
    if config.levels == 256:
        return np.ascontiguousarray(channels_first)
    return np.rint(channels_first * ((config.levels - 1) / 255)).astype(np.uint8)


def to_pil(pixels: Pixels, config: PRSRConfig) -> Image.Image:
    """Convert ``uint8 [D, H, W]`` to a Pillow image, levels 0 … K−1 scaled to 0 … 255."""
    mode = pillow_mode(config)
    spread = np.rint(pixels * (255 / (config.levels - 1))).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(spread[..., 0] if mode == "L" else spread))


def reduce(pixels: Pixels, config: PRSRConfig) -> Pixels:
    """Reduce images bicubically by the scale, as the paper computes its inputs.

    Args:
        pixels: ``uint8 [N, D, s·h, s·w]``, values below K.
        config: of the model, for s and K.

    Returns:
        ``uint8 [N, D, h, w]``, values below K.
    """
    n, channels, height, width = pixels.shape
    size = (width // config.scale, height // config.scale)
    low = np.empty((n, channels, size[1], size[0]), np.uint8)
    for source, target in zip(pixels, low, strict=True):
        for plane in range(channels):
            grey = Image.fromarray(np.ascontiguousarray(source[plane]))
            target[plane] = np.asarray(grey.resize(size, Image.Resampling.BICUBIC))
    # Bicubic interpolation overshoots at edges; Pillow clips only to 255.
    return np.minimum(low, config.levels - 1)
