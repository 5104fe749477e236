"""Give the hidden units of the head that never fire new weights, to continue training.

    python examples/portraits/revive.py portraits --data portraits-validation.npy --out revived

A hidden unit that is zero at every pixel of every image has a gradient of zero, so that training
never changes it again. The new weights of such a unit point in a random direction, as long as those
of the other units, and its bias lets it fire at a quarter of the sub-pixels. Its outgoing weights
become zero: the model computes what it did before.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from prsr import PRSR
from prsr.data.dataset import SuperResolutionImages
from prsr.models.layers import HiddenUnits, MaskedLogits

IMAGES = 64
"""The number of images on which a unit must fire."""

SELDOM = 1e-4
"""A unit that fires at a smaller share of the pixels counts as one that never fires."""

FIRING = 0.25
"""The share of pixels at which a new unit fires."""


@torch.no_grad()
def preactivations(model: PRSR, lr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
    """The head's input and its hidden units before the ReLU.

    Args:
        model: in evaluation mode.
        lr: ``uint8 [N, D, h, w]``.
        hr: ``uint8 [N, D, H, W]``.

    Returns:
        ``[pixels, C]`` and ``[pixels, M]``, of the pixels of all images, channels and units in the
        order of their weights.
    """
    gated = model.config.conditional_gates
    features = model.conditioning.features(lr) if gated else None
    _, horizontal = model.prior.stacks(hr, features)[-1]
    layer = cast(HiddenUnits, model.prior.head[0])
    units = layer(horizontal)[:, layer.order.argsort()]
    return horizontal.movedim(1, -1).flatten(0, 2), units.movedim(1, -1).flatten(0, 2)


@torch.no_grad()
def revive(model: PRSR, lr: Tensor, hr: Tensor) -> Tensor:
    """Give units that never fire on some images new weights, in place.

    Args:
        model: any model; its training mode is kept.
        lr: ``uint8 [N, D, h, w]``.
        hr: ``uint8 [N, D, H, W]``.

    Returns:
        Which units these were, ``bool [M]``.

    Raises:
        ValueError: no unit fires.
    """
    training = model.training
    inputs, units = preactivations(model.eval(), lr, hr)
    model.train(training)
    dead = (units > 0).float().mean(0) < SELDOM
    if bool(dead.all()):
        raise ValueError("no hidden unit fires, so that there is no scale for new weights")
    spread = units[:, ~dead].std()
    hidden, logits = cast(HiddenUnits, model.prior.head[0]), cast(MaskedLogits, model.prior.head[2])
    directions = torch.randn_like(hidden.weight) * hidden.mask
    projected = inputs @ directions[dead].flatten(1).T
    scale = spread / projected.std(0)
    hidden.weight[dead] = directions[dead] * scale[:, None, None, None]
    bias = cast(nn.Parameter, hidden.bias)
    silent = round((1 - FIRING) * len(projected))
    bias[dead] = -(projected * scale).kthvalue(silent, dim=0).values
    logits.weight[:, dead] = 0
    return dead


def main() -> None:
    """Read the command line and write the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a folder, a bundled model, or an id on the hub")
    parser.add_argument("--data", required=True, help="array file of images of the model's size")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    given = parser.parse_args()
    torch.manual_seed(0)  # for the new weights
    model = PRSR.from_pretrained(given.model)
    data = SuperResolutionImages.open(given.data, model.config)
    apart = max(1, len(data) // IMAGES)
    dead = revive(model, *data.batch(range(0, len(data), apart)[:IMAGES]))
    model.save_pretrained(given.out)
    print(f"{int(dead.sum())} of {len(dead)} hidden units have new weights.")


if __name__ == "__main__":
    main()
