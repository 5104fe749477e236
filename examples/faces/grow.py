"""A trained model as a larger one that computes the same, to train on.

Blocks are added behind the last one and begin as nothing; kernels get a rim of zeros; new hidden
units of the head are not read yet; conditional gates start at zero. So the hours that a small model
was trained for are not lost to a large one, each step of which takes far longer. The idea is that
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
"""The fields that may differ."""


def grow(model: PRSR, config: PRSRConfig) -> PRSR:
    """A model of a larger configuration that gives the same logits.

    Raises:
        ValueError: ``config`` has less of something, or differs in what cannot grow.
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
    """Both stacks and the head; a block whose ``mix`` is zero adds nothing to what is drawn."""
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
    """Put the kernels of a convolution in the midst of larger ones, in place of the first ones.

    They end at the own row; those of a row, at the own pixel too.
    """
    outputs, inputs, rows, columns = old.weight.shape
    rim = new.weight.shape[3] - columns
    left = rim if isinstance(new, RowConvolution) else rim // 2
    kernels = new.weight[:outputs]
    kernels.zero_()
    kernels[:, :inputs, kernels.shape[2] - rows :, left : left + columns] = old.weight
    cast(Tensor, new.bias)[:outputs] = cast(Tensor, old.bias)


def grow_conditioning(new: ConditioningNetwork, old: ConditioningNetwork) -> None:
    """ResNet blocks behind those of each resolution, whose last factors are zero."""
    sources = list(old)
    for layer in new:
        if type(layer) is type(sources[0]):
            layer.load_state_dict(sources.pop(0).state_dict())
        else:  # the old network has no more of them at this resolution
            nn.init.zeros_(cast(nn.BatchNorm2d, cast(ResNetBlock, layer)[-1]).weight)


def main() -> None:
    """Read the command line and write the grown model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder, a bundled model, or one of the hub")
    parser.add_argument("preset", choices=list(PRESETS), help="what it is to become")
    parser.add_argument("--out", type=Path, required=True, help="folder for the grown model")
    given = parser.parse_args()
    torch.manual_seed(0)  # of what is new
    model = PRSR.from_pretrained(given.model)
    grow(model, PRSRConfig.preset(given.preset)).save_pretrained(given.out)


if __name__ == "__main__":
    main()
