"""Measure the realism of samples with a face detector and a classifier.

    pip install 'prsr[evaluate]' dlib-bin
    python examples/portraits/realism.py --data portraits-test.npy --l2 runs/l2/model

*Face detector*: the share of images in which dlib's HOG detector of frontal faces finds a face,
after bicubic enlargement to 128×128. *Classifier two-sample test* (Lopez-Paz and Oquab, arXiv
1610.06545): a small convolutional network is trained to distinguish real images from a method's
images of the same inputs. Its accuracy on held-out images is 50% if it cannot distinguish them.
Accuracy is by five-fold cross-validation; a real image and the image made from its input are in the
same fold.
"""

from __future__ import annotations

import argparse

import dlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional as F

from prsr import PRSR, Sampler
from prsr.data.dataset import SuperResolutionImages
from prsr.models.registry import open_model
from prsr.sampling.baselines import method_for
from prsr.sampling.interpolation import Bicubic

SIDE = 128
"""Side of the detector's images in pixels; it finds faces of at least 80 pixels."""

FOLDS, EPOCHS, BATCH = 5, 12, 64


def detections(images: Tensor) -> NDArray[np.bool_]:
    """Whether the detector finds a face in each image: ``uint8 [N, 3, H, W]`` → ``bool [N]``."""
    detector = dlib.get_frontal_face_detector()
    found = [
        len(
            detector(
                np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            )
        )
        for image in images.permute(0, 2, 3, 1).numpy()
    ]
    return np.array(found) > 0


def network() -> nn.Sequential:
    """The classifier: from 32×32 colour images to one logit."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 1))


def verdicts(real: Tensor, made: Tensor, seed: int = 0) -> NDArray[np.bool_]:
    """Whether the classifier is right about each image, when its fold is held out.

    Args:
        real: ``uint8 [N, 3, 32, 32]``.
        made: ``uint8 [N, 3, 32, 32]``, image i made from the input of real image i.
        seed: of folds, initial weights and batches.

    Returns:
        ``bool [2N]``.
    """
    torch.manual_seed(seed)
    folds = torch.randperm(len(real)) % FOLDS
    right = []
    for fold in range(FOLDS):
        seen, unseen = folds != fold, folds == fold
        model = train(torch.cat([real[seen], made[seen]]), int(seen.sum()))
        with torch.no_grad():
            for images, is_real in ((real[unseen], True), (made[unseen], False)):
                right.append((model(scaled(images))[:, 0] > 0) == is_real)
    return torch.cat(right).numpy()


def scaled(images: Tensor) -> Tensor:
    """Images scaled to −1 … 1."""
    return images.float() / 127.5 - 1


def train(images: Tensor, real: int) -> nn.Module:
    """Train a classifier; the first ``real`` images are the real ones."""
    model = network().train()
    steps = EPOCHS * -(-len(images) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    target = (torch.arange(len(images)) < real).float()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            inputs = scaled(images[batch])
            inputs = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, inputs.flip(3), inputs)
            loss = F.binary_cross_entropy_with_logits(model(inputs)[:, 0], target[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def share(holds: NDArray[np.bool_]) -> str:
    """A share in per cent with Wilson's 95% interval."""
    interval = binomtest(int(holds.sum()), len(holds)).proportion_ci(method="wilson")
    return f"{holds.mean():.1%} ({interval.low:.1%} to {interval.high:.1%})"


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="array file of real images")
    parser.add_argument("--model", default="portraits", help="a model, as for prsr sample")
    parser.add_argument("--l2", help="an L2 baseline to compare with")
    parser.add_argument("--temperature", type=float, action="append", help="[default: 0.8 and 1.0]")
    parser.add_argument(
        "--images", type=int, default=500, help="number of images from the start of the data"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = PRSR.from_pretrained(given.model)
    data = SuperResolutionImages.open(given.data, model.config).first(given.images)
    lr, real = data.batch(slice(None))
    sampler = Sampler(model)
    made = {"real": real}
    for temperature in given.temperature or (0.8, 1.0):
        sampled = sampler.sample(lr, temperature, seed=given.seed, progress=True)
        made[f"samples, T = {temperature:g}"] = sampled
    if given.l2:
        made["L2"] = method_for(open_model(given.l2)).sample(lr)
    made["bicubic"] = Bicubic(model.config).sample(lr)
    table = Table("images", "face found", "classifier's accuracy")
    for name, images in made.items():
        accuracy = "" if name == "real" else share(verdicts(real, images, given.seed))
        table.add_row(name, share(detections(images)), accuracy)
    Console().print(table)


if __name__ == "__main__":
    main()
