"""The classifier two-sample test: can a small network tell samples from real images?

Source: Lopez-Paz and Oquab, *Revisiting Classifier Two-Sample Tests* (arXiv 1610.06545). The
accuracy on images that the classifier has not seen is 50% where it cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F

from prsr.data.dataset import SuperResolutionImages
from prsr.evaluation.compare import CHUNK, ComparisonRow, ComparisonTable, method_temperatures
from prsr.evaluation.metrics import confidence_interval
from prsr.sampling.method import Method

ACCURACY = "classifier's accuracy"
"""The metric's name in tables."""

FOLDS, EPOCHS, BATCH = 5, 12, 64
LEAST_SIDE = 8
"""In pixels: the classifier halves the sides three times."""

LEARNING_RATE, WEIGHT_DECAY = 2e-3, 1e-2

DESCRIPTION = (
    f"share of images that a small network classifies correctly as real or generated, over {FOLDS} "
    "folds; 0.5 means that it cannot tell them apart; the interval is a bootstrap over inputs, 95%"
)


def two_sample_tests(
    methods: Mapping[str, Method],
    images: SuperResolutionImages,
    temperatures: Sequence[float],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> ComparisonTable:
    """Test what each method makes of the inputs of real images against these images.

    Args:
        methods: by label.
        images: real ones, which no method was trained on; at least :data:`FOLDS`.
        temperatures: to sample at.
        seed: of the noise, the folds, the first weights and the batches.
        progress: to show bars in.

    Returns:
        A table with one metric, :data:`ACCURACY`.

    Raises:
        ValueError: there are too few images, or they are too small.
    """
    check_real_images(len(images), *images.config.high_size)
    real = torch.cat([images.batch(slice(i, i + CHUNK))[1] for i in range(0, len(images), CHUNK)])
    rows = []
    for label, method in methods.items():
        for temperature in method_temperatures(method, temperatures):
            made = []
            for start in range(0, len(images), CHUNK):
                lr, _ = images.batch(slice(start, start + CHUNK))
                made.append(
                    method.sample(
                        lr,
                        1.0 if temperature is None else temperature,
                        seed=seed,
                        first_index=start,
                        progress=progress or False,
                    )
                )
            right = verdicts(real, torch.cat(made), images.config.levels, seed)
            # A real image and its sample share an input: their verdicts are not independent.
            accuracy = confidence_interval(right.float().mean(dim=1))
            rows.append(ComparisonRow(label, temperature, {ACCURACY: accuracy}))
    return ComparisonTable(rows, [], {})


def check_real_images(count: int, height: int, width: int) -> None:
    """Check that there are enough images, and that they are large enough for the classifier.

    Raises:
        ValueError: they are not.
    """
    if count < FOLDS:
        raise ValueError(f"a two-sample test needs at least {FOLDS} images, got {count}")
    if min(height, width) < LEAST_SIDE:
        raise ValueError(
            f"a two-sample test needs images of at least {LEAST_SIDE}×{LEAST_SIDE} pixels, "
            f"got {height}×{width}"
        )


def verdicts(real: Tensor, made: Tensor, levels: int = 256, seed: int = 0) -> Tensor:
    """Whether the classifier is right about each image of the fold that it has not seen.

    A real image and what was made of its input are in the same fold: the classifier never learns
    from one of them and judges the other.

    Args:
        real: ``uint8 [N, D, H, W]``, values below ``levels``; sides of at least 8.
        made: of the same shape and range; image i was made from the input of real image i.
        levels: K.
        seed: of folds, first weights and batches.

    Returns:
        ``bool [N, 2]``, fold by fold: of a real image and of the one made from its input.

    Raises:
        ValueError: the shapes differ, or there are fewer images than folds, or they are too small.
    """
    if real.shape != made.shape:
        raise ValueError(f"made must be {list(real.shape)} like real, got {list(made.shape)}")
    check_real_images(len(real), *real.shape[2:])
    right = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        folds = torch.randperm(len(real)) % FOLDS
        for fold in range(FOLDS):
            seen, unseen = folds != fold, folds == fold
            inputs = scaled(torch.cat([real[seen], made[seen]]), levels)
            model = train(inputs, int(seen.sum()))
            with torch.no_grad():
                is_real, is_made = (
                    model(scaled(images[unseen], levels))[:, 0] > 0 for images in (real, made)
                )
            right.append(torch.stack([is_real, ~is_made], dim=1))
    return torch.cat(right)


def classifier(channels: int) -> nn.Sequential:
    """The network: ``float32 [N, D, H, W]`` to a logit each, ``[N, 1]``; positive means real."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 32), (32, 64), (64, 128)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 1))


def scaled(images: Tensor, levels: int) -> Tensor:
    """Levels 0 … K−1 as values from −1 to 1."""
    return images.float() / ((levels - 1) / 2) - 1


def train(images: Tensor, real: int) -> nn.Module:
    """A trained classifier in evaluation mode.

    Args:
        images: ``float32 [N, D, H, W]``; the first ``real`` of them are real.
        real: their number.
    """
    model = classifier(images.shape[1]).train()
    steps = EPOCHS * -(-len(images) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    target = (torch.arange(len(images)) < real).float()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            inputs = images[batch]
            inputs = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, inputs.flip(3), inputs)
            loss = F.binary_cross_entropy_with_logits(model(inputs)[:, 0], target[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()
