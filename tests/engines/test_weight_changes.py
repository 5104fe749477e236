"""A snapshot detects every change of a network's weights, and nothing else."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from prsr.engines import weight_changes as snapshot
from prsr.engines.native import instruction_sets
from prsr.engines.weight_changes import Snapshot

IN_MEMORY = [
    pytest.param(
        True,
        marks=pytest.mark.skipif(
            not instruction_sets(), reason="the extension is not built: there was no compiler"
        ),
    ),
    False,
]


@pytest.fixture(params=IN_MEMORY, ids=["in memory", "by torch"])
def network(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(snapshot, "instruction_sets", list)
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(4, 4))


def test_an_unchanged_network_matches(network):
    taken = Snapshot(network)
    assert taken.matches(network)
    network.train().requires_grad_(False).eval()
    assert taken.matches(network)


def test_a_write_to_any_element_is_detected(network):
    taken = Snapshot(network)
    for tensor in (*network.parameters(), *network.buffers()):
        flat = tensor.data.view(-1)
        for place in {0, len(flat) - 1}:
            before = flat[place].clone()
            flat[place] += 1
            assert not taken.matches(network)
            flat[place] = before
            assert taken.matches(network)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net[2].weight, "data", net[2].weight.data.T),
        lambda net: setattr(net[0].weight, "data", net[0].weight.data[:4]),
        lambda net: net.double(),
        lambda net: setattr(net[2], "bias", None),
        lambda net: net.append(nn.Linear(1, 1)),
        lambda net: setattr(net, "2", copy.deepcopy(net[2])),
        lambda net: setattr(net[2], "_parameters", copy.deepcopy(net[2]._parameters)),
        lambda net: net[2].register_buffer("mask", torch.ones(2)),
        lambda net: nn.utils.parametrize.register_parametrization(net[2], "bias", nn.Identity()),
    ],
)
def test_a_change_of_layout_or_structure_is_detected(network, change):
    taken = Snapshot(network)
    change(network)
    assert not taken.matches(network)


def test_a_change_of_an_expanded_weight_is_detected(network):
    network[2].bias = nn.Parameter(torch.ones(1).expand(4), requires_grad=False)
    taken = Snapshot(network)
    assert taken.matches(network)
    network[2].bias.data = torch.full((1,), 2.0).expand(4)
    assert not taken.matches(network)


def test_a_snapshot_does_not_keep_its_network_alive(network):
    model = nn.Sequential(network)
    reference = weakref.ref(model)
    taken = Snapshot(model)
    del model
    gc.collect()
    assert reference() is None
    assert taken.tensors
