"""What the model is compared with: enlargers without learning, and models with less in them.

Source: Dahl, Norouzi and Shlens (arXiv 1702.00783), section 4: nearest neighbour, bicubic, L2
regression. The networks are the model's own parts at the model's own sizes, so that one
configuration gives baselines that differ in their objective alone.

Each is called as :meth:`prsr.Sampler.sample` is; see :class:`Method`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

from prsr.checkpoint import locate, read_description
from prsr.checks import (
    check_draws,
    check_levels,
    check_pair,
    check_pictures,
    check_temperature,
)
from prsr.config import PRSRConfig
from prsr.data import SuperResolutionPictures
from prsr.engines.base import draw
from prsr.evaluating import evaluating
from prsr.exact import exact_fp32
from prsr.images import to_array, to_picture
from prsr.loss import by_sub_pixel, cross_entropy, picture_bits
from prsr.model import (
    PRSR,
    ConditioningNetwork,
    PriorNetwork,
    TrainedModel,
    initialise,
    to_network,
)
from prsr.philox import picture_noise
from prsr.sampling import Batch, Sampler, as_tensor

SLICE = 2
"""Pictures that a network enlarges at a time: so few that their logits stay in the cache."""

READ = 1024
"""Pictures that are reduced at a time where a whole set is read."""


class Method(Protocol):
    """Any way to enlarge pictures: a :class:`prsr.Sampler`, or one of the baselines here."""

    config: PRSRConfig

    def sample(
        self,
        batch: Batch,
        temperature: float | Tensor = 1.0,
        *,
        seed: int | None = None,
        num_samples: int | None = None,
        first_index: int = 0,
        progress: bool | Progress = False,
    ) -> Tensor:
        """Enlarge pictures; see :func:`prsr.sample`."""


class Estimate(ABC):
    """A method that draws nothing: one input has one answer, and all its samples are that one."""

    config: PRSRConfig

    @abstractmethod
    def enlarge(self, lr: Tensor) -> Tensor:
        """``uint8 [N, D, h, w]`` → ``uint8 [N, D, s·h, s·w]``."""

    def sample(
        self,
        batch: Batch,
        temperature: float | Tensor = 1.0,
        *,
        seed: int | None = None,
        num_samples: int | None = None,
        first_index: int = 0,
        progress: bool | Progress = False,
    ) -> Tensor:
        """The answer to each input, ``num_samples`` times; see :func:`prsr.sample`."""
        lr = checked(batch, self.config)
        check_temperature(temperature, len(lr))
        _, samples, _ = check_draws(seed, num_samples, first_index, len(lr))
        hr = self.enlarge(lr)
        return hr if num_samples is None else hr[:, None].expand(-1, samples, -1, -1, -1)


def checked(batch: Batch, config: PRSRConfig) -> Tensor:
    """A batch of inputs as ``uint8 [N, D, h, w]``.

    Raises:
        TypeError: it is not ``uint8``.
        ValueError: it does not fit the configuration.
    """
    lr = as_tensor(batch, config)
    check_pictures(lr, "batch", config)
    check_levels(lr, "batch", config)
    return lr


class Bicubic(Estimate):
    """Bicubic interpolation, as Pillow has it.

    Args:
        config: says what the scale is.
    """

    def __init__(self, config: PRSRConfig) -> None:
        self.config = config

    def enlarge(self, lr: Tensor) -> Tensor:
        """``uint8 [N, D, h, w]`` → ``uint8 [N, D, s·h, s·w]``."""
        size = (lr.shape[3] * self.config.scale, lr.shape[2] * self.config.scale)
        pictures = (to_picture(picture, self.config) for picture in lr.cpu().numpy())
        enlarged = [picture.resize(size, Image.Resampling.BICUBIC) for picture in pictures]
        arrays = [torch.from_numpy(to_array(picture, self.config)) for picture in enlarged]
        return torch.stack(arrays).to(lr.device)


class Nearest(Estimate):
    """The training picture whose low-resolution version is closest in L2.

    Exact, by scikit-learn's blocks of matrix products: trees are no faster in so many dimensions.

    Args:
        pictures: to look among.

    Raises:
        ImportError: scikit-learn is missing.
    """

    def __init__(self, pictures: SuperResolutionPictures) -> None:
        try:
            from sklearn.neighbors import NearestNeighbors
        except ImportError as error:
            raise ImportError(
                "nearest neighbours need scikit-learn: pip install 'prsr[evaluate]'"
            ) from error
        self.config, self.pictures = pictures.config, pictures
        self.index = NearestNeighbors(n_neighbors=1, algorithm="brute")  # exact
        starts = range(0, len(pictures), READ)
        inputs = [pictures.batch(slice(start, start + READ))[0] for start in starts]
        self.index.fit(as_vectors(torch.cat(inputs)))

    def enlarge(self, lr: Tensor) -> Tensor:
        """``uint8 [N, D, h, w]`` → ``uint8 [N, D, s·h, s·w]``.

        Raises:
            ValueError: the inputs are not of the size of those looked among.
        """
        vectors = as_vectors(lr)
        if vectors.shape[1] != self.index.n_features_in_:
            raise ValueError(
                f"batch must hold {self.index.n_features_in_} values a picture, as the pictures "
                f"looked among do, got {list(lr.shape)}"
            )
        closest = self.index.kneighbors(vectors, return_distance=False)[:, 0]
        return torch.from_numpy(np.array(self.pictures.pixels[closest])).to(lr.device)


def as_vectors(lr: Tensor) -> NDArray[np.float32]:
    """``uint8 [N, D, h, w]`` → ``float32 [N, D·h·w]``; distances of levels are whole numbers."""
    return lr.flatten(1).float().cpu().numpy()


class OneNetwork(TrainedModel):
    """One of the model's two networks alone; its output is the logits ``[N, K, D, H, W]``."""

    def loss(self, output: Tensor, hr: Tensor) -> Tensor:
        """Cross-entropy, the mean over sub-pixels, in nats."""
        return cross_entropy(output, hr)

    def figures(self, output: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Bits per dimension."""
        return {"bits/dim": picture_bits(output, hr)}


class Independent(OneNetwork):
    """Pixel-independent cross-entropy: the conditioning network alone.

    At temperature 0 it takes each sub-pixel's likeliest level.
    """

    method = "independent"

    def __init__(self, config: PRSRConfig) -> None:
        super().__init__(config)
        self.conditioning = ConditioningNetwork(config)
        initialise(self)

    def forward(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Logits ``[N, K, D, H, W]``; of ``hr`` only the shape is looked at."""
        check_pair(lr, hr, self)
        return self.conditioning(lr)

    def sample(
        self,
        batch: Batch,
        temperature: float | Tensor = 1.0,
        *,
        seed: int | None = None,
        num_samples: int | None = None,
        first_index: int = 0,
        progress: bool | Progress = False,
    ) -> Tensor:
        """Draw every sub-pixel by itself, with the noise of :func:`prsr.sample`, which see."""
        config, lr = self.config, checked(batch, self.config)
        temperatures = check_temperature(temperature, len(lr))
        seed, samples, first_index = check_draws(seed, num_samples, first_index, len(lr))

        height, width = (config.scale * side for side in lr.shape[2:])
        drawn = torch.empty(len(lr), samples, config.channels, height, width, dtype=torch.uint8)
        device = next(self.parameters()).device
        with exact_fp32(device), evaluating(self):
            for start in range(0, len(lr), SLICE):
                part = slice(start, min(start + SLICE, len(lr)))
                index = first_index + torch.arange(part.start, part.stop, device=device)
                logits = by_sub_pixel(self.conditioning(lr[part].to(device)).float())
                warmth = temperatures[part].to(device).repeat_interleave(len(logits) // len(index))
                for s in range(samples):
                    sample = torch.full_like(index, s)
                    noise = picture_noise(seed, index, sample, height, width, config.channels)
                    levels = draw(logits, noise.flatten(), warmth).view(noise.shape)
                    drawn[part, s] = levels.permute(0, 3, 1, 2).to("cpu", torch.uint8)
        drawn = drawn.to(lr.device)
        return drawn[:, 0] if num_samples is None else drawn


class Regression(TrainedModel, Estimate):
    """L2 regression: the conditioning network's trunk with a linear output."""

    method = "l2"

    def __init__(self, config: PRSRConfig) -> None:
        super().__init__(config)
        self.network = ConditioningNetwork(config)
        self.network[-1] = nn.Conv2d(config.conditioning_channels, config.channels, 1)
        initialise(self)

    def forward(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Expected pictures ``[N, D, H, W]``, value/(K−1) − 0.5; of ``hr`` the shape is read."""
        check_pair(lr, hr, self)
        return self.expected(lr)

    def expected(self, lr: Tensor) -> Tensor:
        """``uint8 [N, D, h, w]`` → ``[N, D, s·h, s·w]``, value/(K−1) − 0.5."""
        return self.network[-1](self.network.features(lr))

    def loss(self, output: Tensor, hr: Tensor) -> Tensor:
        """Mean squared error, where black is 0 and white is 1."""
        return F.mse_loss(output.float(), to_network(hr, self.config.levels))

    def figures(self, output: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """The mean squared error."""
        errors = output.float() - to_network(hr, self.config.levels)
        return {"mean squared error": errors.square().flatten(1).mean(dim=1)}

    def enlarge(self, lr: Tensor) -> Tensor:
        """``uint8 [N, D, h, w]`` → ``uint8 [N, D, s·h, s·w]``."""
        device, top = next(self.parameters()).device, self.config.levels - 1
        with exact_fp32(device), evaluating(self):
            values = torch.cat([self.expected(part.to(device)) for part in lr.split(SLICE)])
        return ((values + 0.5) * top).round().clamp(0, top).to(lr.device, torch.uint8)


class Unconditional(OneNetwork):
    """The prior network alone, as a check: it never sees the input."""

    method = "unconditional"

    def __init__(self, config: PRSRConfig) -> None:
        if config.conditional_gates:
            raise ValueError(
                f"conditional_gates must be false for the method {self.method}, which has no "
                "conditioning network"
            )
        super().__init__(config)
        self.conditioning = NoConditioning(config)
        self.prior = PriorNetwork(config)
        initialise(self)

    def forward(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Logits ``[N, K, D, H, W]`` of ``hr``; of ``lr`` only the shape is looked at."""
        check_pair(lr, hr, self)
        return self.prior(hr)


class NoConditioning(nn.Module):
    """In place of a conditioning network: the same logits whatever the input."""

    def __init__(self, config: PRSRConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, lr: Tensor) -> Tensor:
        """``uint8 [N, D, h, w]`` → zeros ``[N, K, D, s·h, s·w]``."""
        config, (height, width) = self.config, lr.shape[2:]
        size = (config.scale * height, config.scale * width, config.channels, config.levels)
        return torch.zeros(len(lr), *size, device=lr.device).permute(0, 4, 3, 1, 2)


MODELS: dict[str, type[TrainedModel]] = {
    model.method: model for model in (PRSR, Independent, Regression, Unconditional)
}
"""What can be trained, by method."""


def open_model(name: str | Path) -> TrainedModel:
    """A saved model of any method, on the CPU and in evaluation mode.

    Raises:
        FileNotFoundError: there is none of that name.
        ValueError: what is there is damaged, or no prsr model.
    """
    method, _ = read_description(locate(name)[0])
    if method not in MODELS:
        raise ValueError(f"{name} is of the method {method!r}; there are: {', '.join(MODELS)}")
    return MODELS[method].from_pretrained(name)


def method_of(model: TrainedModel, engine: str = "auto", precision: str = "fp32") -> Method:
    """What enlarges pictures with a model.

    Raises:
        ValueError: the engine cannot serve, or the model has no prior network for it to draw with.
    """
    if isinstance(model, (PRSR, Unconditional)):
        return Sampler(cast(PRSR, model), engine=engine, precision=precision)
    if (engine, precision) != ("auto", "fp32"):
        raise ValueError(
            f"engine {engine!r}, precision {precision!r}: a model of the method {model.method} "
            "has no prior network to draw with: use auto and fp32"
        )
    return cast(Method, model)


def trained_model(method: Method) -> TrainedModel | None:
    """The model behind a method, if it has one."""
    model = method.model if isinstance(method, Sampler) else method
    return model if isinstance(model, TrainedModel) else None
