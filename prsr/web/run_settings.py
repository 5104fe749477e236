"""The settings of a run of the sampling page, and the query string that reproduces it."""

from __future__ import annotations

import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from prsr.config import PRSRConfig
from prsr.data.image_arrays import Pixels
from prsr.utils.argument_checks import check_integer, check_one_temperature, set_checked

MOST_SAMPLES = 8
MOST_TEMPERATURE = 10.0
SEEDS = 2**53
"""What a browser's numbers can hold."""

NOTHING, TOP, LEFT, PAINTED = KEEP = ("nothing", "top half", "left half", "what I paint")
"""What of the image is kept; the rest is sampled."""


@dataclass(frozen=True)
class RunSettings:
    """Everything that a run depends on.

    Attributes:
        model: name, as it is given to ``prsr web``.
        engine: name, or "auto".
        precision: "fp32", "fp16" or "bf16".
        temperature: of the draws.
        seed: of the noise.
        samples: of the image.
        keep: one of :data:`KEEP`.
        example: number of a bundled input, from 0; None if there is an image.
        image: the crop ``uint8 [D, s·h, s·w]``; None if there is an example.
        mask: the pixels that are painted, ``bool [s·h, s·w]``; None if none are.

    Raises:
        TypeError: a number has the wrong type.
        ValueError: a value is out of range, or they do not fit each other.
    """

    model: str
    engine: str = "auto"
    precision: str = "fp32"
    temperature: float = 0.8
    seed: int = 0
    samples: int = 4
    keep: str = NOTHING
    example: int | None = None
    image: Pixels | None = None
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        set_checked(self, "temperature", check_one_temperature(self.temperature))
        if self.temperature > MOST_TEMPERATURE:
            raise ValueError(f"temperature must be at most {MOST_TEMPERATURE:g}")
        set_checked(self, "seed", check_integer(self.seed, "seed", 0, SEEDS))
        samples = check_integer(self.samples, "samples", 1, MOST_SAMPLES + 1)
        set_checked(self, "samples", samples)
        if self.keep not in KEEP:
            raise ValueError(f"keep must be one of {', '.join(KEEP)}, got {self.keep!r}")
        if (self.example is None) == (self.image is None):
            raise ValueError("choose an image or an example first")
        if self.keep != NOTHING and self.image is None:
            raise ValueError("an example has no original to keep a part of: choose an image")
        if self.keep == PAINTED and (self.mask is None or not self.mask.any()):
            raise ValueError("paint the part to keep first")

    def kept(self) -> NDArray[np.bool_] | None:
        """Which pixels are kept, ``bool [s·h, s·w]``; None if none are."""
        if self.keep == NOTHING or self.image is None:
            return None
        if self.keep == PAINTED:
            return self.mask
        height, width = self.image.shape[1:]
        mask = np.zeros((height, width), bool)
        mask[(slice(height // 2),) if self.keep == TOP else (slice(None), slice(width // 2))] = True
        return mask

    def to_query(self) -> str:
        """A query string from which :func:`from_query` makes these settings."""
        values: dict[str, object] = {
            "model": self.model,
            "engine": self.engine,
            "precision": self.precision,
            "temperature": f"{self.temperature:g}",
            "seed": self.seed,
            "samples": self.samples,
            "keep": KEEP.index(self.keep),
        }
        if self.example is not None:
            values["example"] = self.example
        if self.image is not None:
            values["image"] = pack(self.image.tobytes())
        if self.keep == PAINTED and self.mask is not None:
            values["mask"] = pack(np.packbits(self.mask).tobytes())
        return urlencode(values)


def from_query(query: Mapping[str, str], configs: Mapping[str, PRSRConfig]) -> RunSettings:
    """The settings that :meth:`RunSettings.to_query` wrote.

    Args:
        query: the parameters.
        configs: of the models that are served, by name.

    Raises:
        ValueError: a parameter is missing or not valid.
    """
    model = query.get("model", "")
    if model not in configs:
        raise ValueError(f"the model {model!r} of the link is not served here")
    config = configs[model]
    height, width = config.high_size
    try:
        image = mask = None
        if "image" in query:
            data = unpack(query["image"], config.channels * height * width)
            image = np.frombuffer(data, np.uint8).reshape(config.channels, height, width)
        if "mask" in query:
            bits = np.frombuffer(unpack(query["mask"], -(-height * width // 8)), np.uint8)
            mask = np.unpackbits(bits)[: height * width].reshape(height, width).astype(bool)
        return RunSettings(
            model,
            query["engine"],
            query["precision"],
            float(query["temperature"]),
            int(query["seed"]),
            int(query["samples"]),
            KEEP[int(query["keep"])],
            int(query["example"]) if "example" in query else None,
            image,
            mask,
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"the link is damaged: {error}") from error


def pack(data: bytes) -> str:
    """Bytes as text that may stand in a URL."""
    return urlsafe_b64encode(zlib.compress(data, 9)).decode().rstrip("=")


def unpack(text: str, size: int) -> bytes:
    """The inverse of :func:`pack` for data of ``size`` bytes; never makes more than that.

    Raises:
        ValueError: the text is not valid, or holds another number of bytes.
    """
    try:
        packed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        reader = zlib.decompressobj()
        data = reader.decompress(packed, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(data) != size or not reader.eof:
        raise ValueError(f"expected {size} bytes")
    return data
