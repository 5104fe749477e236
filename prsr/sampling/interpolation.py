"""Methods without training: bicubic interpolation and the nearest training image.

Source: Dahl, Norouzi and Shlens (arXiv 1702.00783), section 4.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from prsr.config import PRSRConfig
from prsr.data.dataset import SuperResolutionImages
from prsr.data.image_arrays import to_array, to_pil
from prsr.sampling.method import DeterministicMethod

READ = 1024
"""Images to read and reduce at a time."""


class Bicubic(DeterministicMethod):
    """Bicubic interpolation (Pillow's).

    Args:
        config: for the scale and levels.
    """

    def __init__(self, config: PRSRConfig) -> None:
        self.config = config

    def enlarge(self, lr: Tensor) -> Tensor:
        """``uint8 [N, D, h, w]`` → ``uint8 [N, D, s·h, s·w]``."""
        size = (lr.shape[3] * self.config.scale, lr.shape[2] * self.config.scale)
        images = (to_pil(image, self.config) for image in lr.cpu().numpy())
        enlarged = [image.resize(size, Image.Resampling.BICUBIC) for image in images]
        arrays = [torch.from_numpy(to_array(image, self.config)) for image in enlarged]
        return torch.stack(arrays).to(lr.device)


class Nearest(DeterministicMethod):
    """The training image whose low-resolution version is nearest in L2 distance.

    The search is exhaustive (scikit-learn): trees are no faster in this many dimensions.

    Args:
        images: the training images.

    Raises:
        ImportError: scikit-learn is missing.
    """

    def __init__(self, images: SuperResolutionImages) -> None:
        try:
            from sklearn.neighbors import NearestNeighbors
        except ImportError as error:
            raise ImportError(
                "nearest neighbours need scikit-learn: pip install 'prsr[evaluate]'"
            ) from error
        self.config, self.images = images.config, images
        self.index = NearestNeighbors(n_neighbors=1, algorithm="brute")  # exact
        starts = range(0, len(images), READ)
        inputs = [images.batch(slice(start, start + READ))[0] for start in starts]
        self.index.fit(as_vectors(torch.cat(inputs)))

    def enlarge(self, lr: Tensor) -> Tensor:
        """``uint8 [N, D, h, w]`` → ``uint8 [N, D, s·h, s·w]``.

        Raises:
            ValueError: the inputs differ in size from the training images.
        """
        vectors = as_vectors(lr)
        if vectors.shape[1] != self.index.n_features_in_:
            raise ValueError(
                f"batch must have {self.index.n_features_in_} values per image, like the training "
                f"images, got {list(lr.shape)}"
            )
        nearest = self.index.kneighbors(vectors, return_distance=False)[:, 0]
        return torch.from_numpy(np.array(self.images.pixels[nearest])).to(lr.device)


def as_vectors(lr: Tensor) -> NDArray[np.float32]:
    """``uint8 [N, D, h, w]`` → ``float32 [N, D·h·w]``; squared distances are exact."""
    return lr.flatten(1).float().cpu().numpy()
