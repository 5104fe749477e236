"""The module ``prsr._bench``: the kernels' exponential and gate, and the limits of the machine."""

from __future__ import annotations

import pytest
import torch

from prsr.engines.cpu import instruction_sets

bench = pytest.importorskip(
    "prsr._bench", reason="built for development only: PRSR_BUILD_BENCH=1 when prsr is installed"
)

pytestmark = pytest.mark.sanitize


@pytest.mark.parametrize("name", instruction_sets())
def test_limits_of_the_machine_are_per_second(name):
    # In operations and bytes, not in thousands of millions of them: no core is outside these.
    assert 1e8 < bench.fma_peak(name, 1) < 1e13
    # Less than a line for each thread, and what is no multiple of one.
    for size in (1, 100_001):
        assert 1e7 < bench.read_bandwidth(name, size, 2) < 1e14


def test_an_unknown_instruction_set_is_refused():
    memory = torch.zeros(1).data_ptr()
    for call in (
        lambda: bench.fma_peak("mmx", 1),
        lambda: bench.read_bandwidth("mmx", 1, 1),
        lambda: bench.exponentials("mmx", memory, memory, 1),
        lambda: bench.gates("mmx", memory, memory, memory, 1),
    ):
        with pytest.raises(ValueError, match="no instruction set mmx here"):
            call()


@pytest.mark.parametrize("name", instruction_sets())
def test_the_exponential_is_exact_over_its_whole_range(name):
    x = torch.cat([torch.linspace(-87, 88, 4_000_001), torch.linspace(-1, 1, 1_000_001)])
    out = torch.full_like(x, torch.nan)
    bench.exponentials(name, x.data_ptr(), out.data_ptr(), len(x))
    exact = x.double().exp()
    assert ((out.double() - exact).abs() / exact).max() < 2e-7
    ends = torch.tensor([-torch.inf, -1e30, -88.0, 89.0, torch.inf])
    bench.exponentials(name, ends.data_ptr(), ends.data_ptr(), len(ends))
    assert ends[:3].tolist() == [0, 0, 0]
    assert bool((ends[3:].log() > 87.9).all())


@pytest.mark.parametrize("name", instruction_sets())
def test_the_gate_is_exact_over_its_whole_range(name):
    side = torch.cat([torch.linspace(-20, 20, 801), torch.tensor([-1e30, -100.0, 100.0, 1e30])])
    a, b = (grid.flatten().contiguous() for grid in torch.meshgrid(side, side, indexing="ij"))
    out = torch.full_like(a, torch.nan)
    bench.gates(name, a.data_ptr(), b.data_ptr(), out.data_ptr(), len(a))
    exact = a.double().tanh() * b.double().sigmoid()
    # Four roundings of numbers up to 1, at 6e-8 each; torch's own two in float32 make 1.4e-7.
    assert (out.double() - exact).abs().max() < 2.5e-7
