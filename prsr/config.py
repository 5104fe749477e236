"""The configuration of a model: every size, validated once, and the presets.

Sources: Dahl, Norouzi and Shlens, *Pixel Recursive Super Resolution* (arXiv 1702.00783), and the
gated PixelCNN of van den Oord et al. (arXiv 1606.05328). L, C and the image sizes of the preset
``paper`` are those given in a review of the paper; k, k0, M and B are those on
which the public re-implementations agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Upper bounds keep a hostile or mistyped configuration from exhausting the machine.
_RANGES: dict[str, tuple[int, int]] = {
    "channels": (1, 16),
    "levels": (2, 256),
    "scale": (1, 64),
    "low_height": (1, 4096),
    "low_width": (1, 4096),
    "conditioning_channels": (1, 4096),
    "conditioning_blocks": (0, 256),
    "prior_channels": (1, 4096),
    "prior_layers": (1, 256),
    "prior_kernel": (1, 63),
    "first_kernel": (3, 63),
    "head_channels": (1, 65536),
}


@dataclass(frozen=True)
class PRSRConfig:
    """The sizes of a pixel-recursive super-resolution model.

    Attributes:
        channels: D, sub-pixels of a pixel: 3 for colour, 1 for grey.
        levels: K, the number of values of a sub-pixel, 2 to 256: images are ``uint8``.
        scale: s, high over low resolution; a power of two.
        low_height: height in pixels of the low-resolution images the model is trained on.
        low_width: their width. ``prsr sample`` reduces images to this size; the networks are
            convolutional and accept any size.
        conditioning_channels: features of the conditioning network.
        conditioning_blocks: B, ResNet blocks before each doubling, and after the last.
        prior_channels: C, features of each stack of the prior network; at least D.
        prior_layers: L, gated blocks of the prior network.
        prior_kernel: k, kernel width of a gated block; odd.
        first_kernel: k0, kernel width of the prior's first layer; odd and at least 3.
        head_channels: M, hidden width of the prior's head; at least D.
        conditional_gates: whether the conditioning network's features enter every gated block of
            the prior (van den Oord et al., section 2.3). The paper's model has none.

    Raises:
        ValueError: a value is outside its range.
        TypeError: a number is not an integer, or ``conditional_gates`` not a bool.
    """

    channels: int = 3
    levels: int = 256
    scale: int = 4
    low_height: int = 8
    low_width: int = 8
    conditioning_channels: int = 32
    conditioning_blocks: int = 6
    prior_channels: int = 32
    prior_layers: int = 20
    prior_kernel: int = 5
    first_kernel: int = 7
    head_channels: int = 1024
    conditional_gates: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {value}")
        if not isinstance(self.conditional_gates, bool):
            raise TypeError(
                f"conditional_gates must be true or false, got {self.conditional_gates!r}"
            )
        if self.scale & (self.scale - 1):
            raise ValueError(f"scale must be a power of two, got {self.scale}")
        for name in ("prior_kernel", "first_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd, got {getattr(self, name)}")
        # A colour group needs a feature to read the earlier colours of its own pixel.
        for name in ("prior_channels", "head_channels"):
            if getattr(self, name) < self.channels:
                raise ValueError(
                    f"{name} must be at least channels ({self.channels}), got {getattr(self, name)}"
                )

    @property
    def doublings(self) -> int:
        """Number of times the conditioning network doubles the resolution: log2 of the scale."""
        return self.scale.bit_length() - 1

    @property
    def high_size(self) -> tuple[int, int]:
        """Height and width of the high-resolution images of training in pixels."""
        return self.scale * self.low_height, self.scale * self.low_width

    @property
    def image_format(self) -> tuple[int, ...]:
        """The fields that define a model's images: two models of one format are comparable."""
        return self.channels, self.levels, self.scale, self.low_height, self.low_width

    @property
    def reach(self) -> int:
        """Pixels that a gated block reads to each side and above: p = ⌊k/2⌋."""
        return self.prior_kernel // 2

    @property
    def first_reach(self) -> int:
        """Pixels that the prior's first layer reads to each side and above: p0 = ⌊k0/2⌋."""
        return self.first_kernel // 2

    @property
    def gate_inputs(self) -> int:
        """F, conditioning features that a gated block reads; 0 without conditional gates."""
        return self.conditioning_channels if self.conditional_gates else 0

    @classmethod
    def preset(cls, name: str) -> PRSRConfig:
        """The configuration called ``name``: one of ``prsr.PRESETS``.

        Raises:
            ValueError: there is no preset of that name.
        """
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; there are: {', '.join(PRESETS)}")
        return PRESETS[name]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PRSRConfig:
        """The inverse of :meth:`to_dict`: every field must be present, and no other.

        Only ``conditional_gates`` may be absent, as in configurations saved before it existed.

        Raises:
            ValueError: a field is missing, unknown or out of range.
            TypeError: a value has the wrong type.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"values must be a mapping, got {type(values).__name__}")
        names = {field.name for field in dataclasses.fields(cls)}
        missing = sorted(names - values.keys() - {"conditional_gates"})
        unknown = sorted(str(key) for key in values.keys() - names)
        if missing:
            raise ValueError(f"configuration lacks {', '.join(missing)}")
        if unknown:
            raise ValueError(f"configuration has unknown fields {', '.join(unknown)}")
        return cls(**values)

    def to_dict(self) -> dict[str, int | bool]:
        """The fields by name, ready for JSON."""
        return dataclasses.asdict(self)


PRESETS: dict[str, PRSRConfig] = {
    "paper": PRSRConfig(),
    "paper-conditional": PRSRConfig(conditional_gates=True),
    "paper-64": PRSRConfig(prior_channels=64),
    "compact": PRSRConfig(
        conditioning_blocks=3, prior_layers=10, prior_kernel=3, head_channels=192
    ),
    "digits": PRSRConfig(
        channels=1,
        low_height=7,
        low_width=7,
        conditioning_channels=16,
        conditioning_blocks=2,
        prior_channels=16,
        prior_layers=6,
        prior_kernel=3,
        head_channels=64,
    ),
    "tiny": PRSRConfig(
        levels=8,
        scale=2,
        low_height=3,
        low_width=3,
        conditioning_channels=4,
        conditioning_blocks=1,
        prior_channels=7,
        prior_layers=2,
        prior_kernel=3,
        first_kernel=5,
        head_channels=11,
    ),
}
"""Configurations by name.

``paper``: the paper's; ``paper-conditional``: with conditional gates; ``paper-64``: with C = 64;
``compact``: small enough to train on a CPU; ``digits``: for MNIST; ``tiny``: for tests.
"""
