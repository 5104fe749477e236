"""What an instruction set can do, alone: exponentials, gates, and the machine's limits."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from prsr.engines.cpu import instruction_sets

pytestmark = [
    pytest.mark.sanitize,
    pytest.mark.skipif(
        not instruction_sets(), reason="the extension is not built: there was no compiler"
    ),
]


def native():
    """The extension."""
    return import_module("prsr._native")


def test_limits_of_the_machine_are_measured_for_each_instruction_set():
    for name in instruction_sets():
        assert native().fma_peak(name, 1) > 0
        # Less than a line for each thread, and what is no multiple of one.
        assert min(native().read_bandwidth(name, size, 2) for size in (1, 100_001)) > 0
    for measure in (
        lambda: native().fma_peak("mmx", 1),
        lambda: native().read_bandwidth("mmx", 1, 1),
    ):
        with pytest.raises(ValueError, match="no instruction set mmx here"):
            measure()


@pytest.mark.parametrize("name", instruction_sets())
def test_the_exponential_is_exact_over_its_whole_range(name):
    x = torch.cat([torch.linspace(-87, 88, 4_000_001), torch.linspace(-1, 1, 1_000_001)])
    out = torch.full_like(x, torch.nan)
    native().exponentials(name, x.data_ptr(), out.data_ptr(), len(x))
    exact = x.double().exp()
    assert ((out.double() - exact).abs() / exact).max() < 2e-7
    ends = torch.tensor([-torch.inf, -1e30, -88.0, 89.0, torch.inf])
    native().exponentials(name, ends.data_ptr(), ends.data_ptr(), len(ends))
    assert ends[:3].tolist() == [0, 0, 0]
    assert bool((ends[3:].log() > 87.9).all())


@pytest.mark.parametrize("name", instruction_sets())
def test_the_gate_is_exact_over_its_whole_range(name):
    side = torch.cat([torch.linspace(-20, 20, 801), torch.tensor([-1e30, -100.0, 100.0, 1e30])])
    a, b = (grid.flatten().contiguous() for grid in torch.meshgrid(side, side, indexing="ij"))
    out = torch.full_like(a, torch.nan)
    native().gates(name, a.data_ptr(), b.data_ptr(), out.data_ptr(), len(a))
    exact = a.double().tanh() * b.double().sigmoid()
    # Four roundings of numbers up to 1, at 6e-8 each; torch's own two in float32 make 1.4e-7.
    assert (out.double() - exact).abs().max() < 2.5e-7
