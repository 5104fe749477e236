"""What the tests share: one thread, fixed seeds, and models whose draws are far from uniform."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from pathlib import Path

# Before anything imports Triton, for it decides then whether its own functions are interpreted.
os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import nn

from prsr import PRESETS, PRSR

torch.set_num_threads(1)
sys.path.append(str(Path(__file__).parents[1]))  # for benchmarks; behind the prsr that is installed
settings.register_profile(
    "prsr",
    derandomize=True,
    deadline=None,
    database=None,
    # The fixtures that tests share return plain functions, which keep nothing between examples.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("prsr")


def build_model(seed=0, gain=2.0, config=PRESETS["tiny"], **changes) -> PRSR:
    """A model in evaluation mode, random in every number that it has.

    With the prior's usual gain its logits differ by nats, and by more than the conditioning's.
    """
    model = PRSR(dataclasses.replace(config, **changes)).eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, layer in model.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                std = (gain if name.startswith("prior") else 0.7) / math.sqrt(
                    layer.weight[0].numel()
                )
                layer.weight.normal_(0, std, generator=random)
                layer.bias.normal_(0, 0.5, generator=random)
            elif isinstance(layer, nn.BatchNorm2d):
                for values in (layer.weight, layer.running_var):
                    values.uniform_(0.5, 1.5, generator=random)
                for values in (layer.bias, layer.running_mean):
                    values.normal_(0, 0.3, generator=random)
    return model


def build_pictures(config, n, height, width, seed=0) -> torch.Tensor:
    """Random pictures, ``uint8 [n, D, height, width]`` below K."""
    shape = (n, config.channels, height, width)
    random = torch.Generator().manual_seed(seed)
    return torch.randint(config.levels, shape, dtype=torch.uint8, generator=random)


@pytest.fixture(scope="session")
def make_model():
    return build_model


@pytest.fixture(scope="session")
def make_pictures():
    return build_pictures
