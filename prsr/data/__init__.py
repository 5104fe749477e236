"""Data sets and images: reading, reducing, converting and writing them."""

from prsr.data.dataset import SuperResolutionImages

__all__ = ["SuperResolutionImages"]
