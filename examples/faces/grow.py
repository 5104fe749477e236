"""Convert a trained model to a larger one that computes the same function, to continue training.

New blocks follow the last one and initially have no effect; kernels are padded with zeros; the
weights of new hidden units of the head and of conditional gates are zero. The large model, whose
training steps are far slower, thus benefits from the training of the small one. The method is that
of Net2Net (Chen, Goodfellow and Shlens, arXiv 1511.05641).
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from prsr import PRESETS, PRSR, PRSRConfig
from prsr.models.layers import GatedBlock, RowConvolution
from prsr.models.networks import ConditioningNetwork, PriorNetwork, ResNetBlock

GROWING = (
    "prior_layers",
    "prior_kernel",
    "head_channels",
    "conditioning_blocks",
    "conditional_gates",
)
"""The fields of the configuration that may differ."""


def grow(model: PRSR, config: PRSRConfig) -> PRSR:
    """Convert a model to a larger configuration with the same logits.

    Raises:
        ValueError: a field of ``config`` is smaller, or larger but not one of ``GROWING``.
    """
    for name, old in dataclasses.asdict(model.config).items():
        new = getattr(config, name)
        if new < old or (new > old and name not in GROWING):
            raise ValueError(f"{name} cannot go from {old} to {new}: only {GROWING} grow")
    grown = PRSR(config)
    with torch.no_grad():
        grow_prior(grown.prior, model.prior)
        grow_conditioning(grown.conditioning, model.conditioning)
    return grown.train(model.training)


def grow_prior(new: PriorNetwork, old: PriorNetwork) -> None:
    """Copy both stacks and the head; new blocks have a zero ``mix`` and therefore no effect."""
    new.first_vertical.load_state_dict(old.first_vertical.state_dict())
    new.first_horizontal.load_state_dict(old.first_horizontal.state_dict())
    for index, block in enumerate(cast("list[GatedBlock]", new.blocks)):
        if index >= len(old.blocks):
            nn.init.zeros_(block.mix.weight)
            continue
        source = cast(GatedBlock, old.blocks[index])
        enlarge(block.vertical, source.vertical)
        enlarge(block.horizontal, source.horizontal)
        for name in ("conditional_vertical", "conditional_horizontal"):
            if (gates := getattr(source, name)) is not None:
                getattr(block, name).load_state_dict(gates.state_dict())
        block.link.load_state_dict(source.link.state_dict())
        block.mix.load_state_dict(source.mix.state_dict())
    for index in (0, 2):
        enlarge(cast(nn.Conv2d, new.head[index]), cast(nn.Conv2d, old.head[index]))


def enlarge(new: nn.Conv2d, old: nn.Conv2d) -> None:
    """Copy the kernels of a convolution into larger ones, padded with zeros.

    The last row of a kernel stays the current row. In a row convolution, the last column stays the
    current pixel.
    """
    outputs, inputs, rows, columns = old.weight.shape
    padding = new.weight.shape[3] - columns
    left = padding if isinstance(new, RowConvolution) else padding // 2
    kernels = new.weight[:outputs]
    kernels.zero_()
    kernels[:, :inputs, kernels.shape[2] - rows :, left : left + columns] = old.weight
    cast(Tensor, new.bias)[:outputs] = cast(Tensor, old.bias)


def grow_conditioning(new: ConditioningNetwork, old: ConditioningNetwork) -> None:
    """Copy the network; new ResNet blocks of each resolution end with a scale of zero."""
    sources = list(old)
    for layer in new:
        if type(layer) is type(sources[0]):
            layer.load_state_dict(sources.pop(0).state_dict())
        else:  # a new block of this resolution
            nn.init.zeros_(cast(nn.BatchNorm2d, cast(ResNetBlock, layer)[-1]).weight)


def main() -> None:
    """Read the command line and write the grown model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder, a bundled model, or an id on the hub")
    parser.add_argument("preset", choices=list(PRESETS), help="preset of the larger model")
    parser.add_argument("--out", type=Path, required=True, help="folder for the grown model")
    given = parser.parse_args()
    torch.manual_seed(0)  # for the new weights
    model = PRSR.from_pretrained(given.model)
    grow(model, PRSRConfig.preset(given.preset)).save_pretrained(given.out)


if __name__ == "__main__":
    main()
