"""Layers: the gate equals its formula, gradients included."""

import pytest
import torch

from prsr.models.layers import gate


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_gate_is_the_formula_in_any_memory_format(layout):
    a = torch.randn(2, 10, 3, 4, dtype=torch.double).contiguous(memory_format=layout)
    a.requires_grad_()
    expected = a[:, :5].tanh() * a[:, 5:].sigmoid()
    torch.testing.assert_close(gate(a), expected)
    found, truth = (torch.autograd.grad(x.square().sum(), a)[0] for x in (gate(a), expected))
    torch.testing.assert_close(found, truth)
    assert gate(a).is_contiguous(memory_format=layout)
