"""The module ``prsr._bench``: the kernels' exponential and gate, and the limits of the machine."""

from __future__ import annotations

import pytest
import torch

from prsr.engines.cpu import BUNDLE
from prsr.engines.cpu_layout import unpaired
from prsr.engines.native import instruction_sets

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


def test_a_round_trip_between_threads_is_in_seconds():
    # Nanoseconds between neighbouring cores, milliseconds if the system switches between threads.
    assert 1e-8 < bench.round_trip() < 1


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


@pytest.mark.parametrize("name", instruction_sets())
@pytest.mark.parametrize("bundle", [1, BUNDLE])
@pytest.mark.parametrize("size", [1, 2, 11, 16, 33, 64])
def test_features_are_rounded_to_nearest_even_in_pairs(name, bundle, size):
    # Halves of the last place that is kept, their neighbours, and the ends of the range.
    kept = torch.arange(size * bundle, dtype=torch.int32) * 29 + 0x3F80
    for below in (0, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        x = (kept * 2**16 + below).view(torch.float32) * torch.tensor([1.0, -1.0])[kept % 2]
        x[-1:] = torch.tensor([torch.inf, 3.4e38, -0.0, 0.0, torch.nan])[size % 5]
        pairs = torch.full(((size + 1) // 2 * bundle + 1,), torch.nan)
        bench.round_to_bf16(name, x.data_ptr(), pairs.data_ptr(), size, bundle)
        ours = unpaired(pairs[:-1].view(-1, bundle), [size])
        wanted = x.view(size, bundle).bfloat16().float()
        assert torch.equal(ours.isnan(), wanted.isnan())
        numbers = ~wanted.isnan()
        assert torch.equal(ours[numbers], wanted[numbers])
        assert torch.equal(ours[numbers].signbit(), wanted[numbers].signbit())
        if size % 2:  # the second half of the last pair
            halves = pairs[:-1].view(-1, bundle)[-1].view(torch.bfloat16)
            assert not halves[1::2].any()
        assert bool(pairs[-1].isnan())
