"""Measure the realism of samples with a face detector and a classifier.

    pip install 'prsr[evaluate]' dlib-bin
    python examples/portraits/realism.py --data portraits-test.npy --l2 runs/l2/model

*Face detector*: the share of images in which dlib's HOG detector of frontal faces finds a face,
after bicubic enlargement to 128×128. *Classifier*: the two-sample test of `prsr two-sample`.
"""

from __future__ import annotations

import argparse

import dlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from prsr import PRSR, Sampler
from prsr.data.dataset import SuperResolutionImages
from prsr.evaluation.metrics import Interval, confidence_interval, share_interval
from prsr.evaluation.two_sample import verdicts
from prsr.models.registry import open_model
from prsr.sampling.interpolation import Bicubic
from prsr.sampling.method_for import method_for

SIDE = 128
"""Side of the detector's images in pixels; it finds faces of at least 80 pixels."""


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


def described(share: Interval) -> str:
    """A share and its 95% interval in per cent."""
    return f"{share.mean:.1%} ({share.low:.1%} to {share.high:.1%})"


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
        accuracy = ""
        if name != "real":
            right = verdicts(real, images, seed=given.seed)
            accuracy = described(confidence_interval(right.float().mean(dim=1)))
        table.add_row(name, described(share_interval(detections(images))), accuracy)
    Console().print(table)


if __name__ == "__main__":
    main()
