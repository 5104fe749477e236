"""AMX in the engine ``cpu``: products of tiles, by an emulation or by the processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import prsr
from prsr import Sampler
from prsr.engines import cpu, cpu_layout
from prsr.engines.cpu import BUNDLE
from prsr.engines.native import INSTRUCTION_SET, chosen_instruction_set, instruction_sets

WITH_TILES = [name for name in instruction_sets() if name.startswith("amx")]

pytestmark = [
    pytest.mark.sanitize,
    pytest.mark.skipif(
        not WITH_TILES,
        reason="no amx-emulated: it needs a processor with AVX512-BF16, and "
        "PRSR_BUILD_BENCH=1 when prsr is installed",
    ),
]
each_with_tiles = pytest.mark.parametrize("name", WITH_TILES)

SMALLEST = np.float64(2.0**-126)  # of the normal float32 numbers


def flushed(x):
    """Float32 numbers with denormals as zero."""
    return np.where(abs(x) < SMALLEST, np.copysign(np.float32(0), x), x)


def rounded(x, y):
    """x + y, float64, rounded once to float32, to nearest even; denormals become zero."""
    total = x + y
    other = total - x
    error = (x - (total - other)) + (y - other)  # exactly what the addition lost
    # Odd where it lost something: then rounding again gives what rounding once would give.
    even = total.view(np.int64) % 2 == 0
    towards = np.where(error > 0, np.inf, -np.inf)
    total = np.where(np.isfinite(error) & (error != 0) & even, np.nextafter(total, towards), total)
    # x86 tests for denormals after rounding to 24 bits.
    tiny = abs(total) < SMALLEST - 2.0**-151
    return np.where(tiny, np.copysign(0, total), total).astype(np.float32)


def expected_product(a, b, c):
    """TDPBF16PS as Intel's manual defines it: a ``[rows, pairs, 2]``, b ``[pairs, columns, 2]``."""
    sums = np.zeros((*c.shape, 2), np.float32)
    a, b = (flushed(x).astype(np.float64) for x in (a, b))
    for k in range(a.shape[1]):
        sums = rounded(a[:, None, k] * b[None, k], sums.astype(np.float64))
    both = rounded(*(sums[..., half].astype(np.float64) for half in range(2)))
    return rounded(flushed(c).astype(np.float64), both.astype(np.float64))


def bfloat16(bits):
    """Bit patterns of bfloat16 as float32 numbers."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def operand(kind, shape, rng):
    """Bit patterns of bfloat16: ordinary numbers, some whose products are denormal, or any."""
    if kind == "any":
        return rng.integers(0, 2**16, shape, dtype=np.uint16)
    exponents = {"ordinary": (118, 130), "tiny": (56, 72)}[kind]
    fields = rng.integers(0, 2, shape) << 15, rng.integers(*exponents, shape) << 7
    return (sum(fields) + rng.integers(0, 2**7, shape)).astype(np.uint16)


@each_with_tiles
@pytest.mark.parametrize("kind", ["ordinary", "tiny", "any"])
@pytest.mark.parametrize(
    ("rows", "pairs", "columns"), [(16, 16, 16), (1, 11, 16), (16, 5, 8), (7, 16, 3), (1, 1, 1)]
)
def test_a_product_of_tiles_is_what_the_manual_defines(name, kind, rows, pairs, columns):
    bench = pytest.importorskip("prsr._bench", reason="prsr was installed without PRSR_BUILD_BENCH")
    rng = np.random.default_rng(rows)
    for _ in range(20):
        a, b = operand(kind, (rows, pairs, 2), rng), operand(kind, (pairs, columns, 2), rng)
        c = bfloat16(operand(kind, (rows, columns), rng))
        if kind == "tiny":
            c *= np.float32(2.0**-63)
        with np.errstate(all="ignore"):
            expected = expected_product(bfloat16(a), bfloat16(b), c)
        addresses = (array.ctypes.data for array in (a, b, c))
        bench.multiply_tiles(name, *addresses, rows, pairs, columns)
        assert np.array_equal(np.isnan(c), np.isnan(expected))
        numbers = ~np.isnan(expected)
        assert np.array_equal(c.view(np.int32)[numbers], expected.view(np.int32)[numbers])


def test_products_of_tiles_need_tiles():
    bench = pytest.importorskip("prsr._bench", reason="prsr was installed without PRSR_BUILD_BENCH")
    with pytest.raises(ValueError, match="no tiles in avx2"):
        bench.multiply_tiles("avx2", 0, 0, 0, 1, 1, 1)


def test_tiles_are_not_used_unless_asked_for(monkeypatch):
    monkeypatch.delenv(INSTRUCTION_SET, raising=False)
    assert chosen_instruction_set() not in WITH_TILES


@each_with_tiles
def test_tiles_are_used_in_bf16_only(make_model, monkeypatch, name):
    monkeypatch.setenv(INSTRUCTION_SET, name)
    prior, engine = make_model().prior, cpu.CPUEngine()
    assert engine.pack(prior, "bf16").tiles
    assert not engine.pack(prior, "fp32").tiles


def in_the_midst_of_nan(tensor):
    """A copy, aligned to 64 bytes, with NaN before and after it: as float32 and as bfloat16."""
    whole = 4096
    memory = torch.full((tensor.numel() + 2 * whole,), -1, dtype=torch.int32).view(torch.float32)
    start = whole - memory.data_ptr() // 4 % 16
    copy = memory[start : start + tensor.numel()].view(tensor.shape)
    return copy.copy_(tensor)


@each_with_tiles
@pytest.mark.parametrize("n", [3, BUNDLE])
@pytest.mark.parametrize("gates", [False, True])
def test_nothing_beyond_an_operand_is_read(make_model, make_images, monkeypatch, name, n, gates):
    # No number of inputs is a multiple of 32: every last chunk ends within a tile.
    monkeypatch.setenv(INSTRUCTION_SET, name)
    model = make_model(
        prior_channels=33, head_channels=35, conditional_gates=gates, conditioning_channels=5
    )
    lr = make_images(model.config, n, 2, 3)
    sampler = Sampler(model, engine="cpu", precision="bf16")
    plain = sampler.sample(lr, seed=1)
    zeros, bundled = cpu_layout.aligned_zeros, cpu.bundled
    for module in (cpu, cpu_layout):
        monkeypatch.setattr(
            module, "aligned_zeros", lambda *shape: in_the_midst_of_nan(zeros(*shape))
        )
    monkeypatch.setattr(cpu, "bundled", lambda *given: in_the_midst_of_nan(bundled(*given)))
    again = Sampler(model, engine="cpu", precision="bf16")
    assert torch.equal(again.sample(lr, seed=1), plain)


def make_constant(layer, outputs, halves=1):
    """Let the first outputs of a layer, or of each half of them, be their bias: 1."""
    for weight in layer.weight.chunk(halves):
        weight[:outputs] = 0
    for bias in () if layer.bias is None else layer.bias.chunk(halves):
        bias[:outputs] = 1


@torch.no_grad()
def sensitive_model(make_model, layers, **changes):
    """A model whose draws depend on the order of sums in its vertical layers or its last layer.

    Some inputs of these layers are constant, and are multiplied by huge weights of opposite signs:
    in the first row of a kernel and the last, or in one third of the hidden units and another. They
    cancel, and what the sums have lost to rounding meanwhile remains.
    """
    model = make_model(**changes)
    prior, config = model.prior, model.config
    if layers == "last":
        # A unit and its opposite have the same colour.
        third = config.head_channels // 3 // config.channels * config.channels
        make_constant(prior.head[0], 2 * third)
        weight = prior.head[2].weight
        first, last = weight[:, :third], weight[:, third : 2 * third]
        last.copy_(-first.mul_(2.0**22))
        return model
    third = config.prior_channels // 3
    make_constant(prior.first_vertical, third)
    for block in prior.blocks:
        weight = block.vertical.weight
        first, last = weight[:, :third, 0, 0], weight[:, :third, -1, -1]
        last.copy_(-first.mul_(2.0**22))
        for layer in filter(None, (block.vertical, block.conditional_vertical)):
            make_constant(layer, third, halves=2)
    return model


@each_with_tiles
@pytest.mark.parametrize("layers", ["vertical", "last"])
@pytest.mark.parametrize("gates", [False, True])
def test_sums_have_one_order(make_model, make_images, threads, monkeypatch, name, layers, gates):
    # Every number of bundles per thread that has its own tiles, five strips of 16 outputs, and rows
    # of more columns than a tile has.
    monkeypatch.setenv(INSTRUCTION_SET, name)
    model = sensitive_model(
        make_model, layers, levels=80, prior_channels=33, head_channels=210, conditional_gates=gates
    )
    lr = make_images(model.config, 4 * BUNDLE, 2, 9)
    sampler = Sampler(model, engine="cpu", precision="bf16")
    images = sampler.sample(lr, seed=1)
    for n in (1, 2, 3, *range(BUNDLE, 4 * BUNDLE, BUNDLE)):
        assert torch.equal(sampler.sample(lr[:n], seed=1), images[:n])
    threads(2)  # of which one adds up the contributions of earlier colours
    assert torch.equal(sampler.sample(lr[:1], seed=1), images[:1])


@each_with_tiles
@pytest.mark.parametrize("layers", ["vertical", "last"])
def test_the_order_of_sums_shows_in_draws(
    make_model, make_images, threads, monkeypatch, name, layers
):
    """The test above would notice another order: that of AVX512-BF16 draws other images."""
    threads(1)
    model = sensitive_model(make_model, layers, levels=80, prior_channels=33, head_channels=210)
    lr, images = make_images(model.config, 3, 1, 9), []
    for each in (name, "avx512bf16"):
        monkeypatch.setenv(INSTRUCTION_SET, each)
        images.append(prsr.sample(lr, model=model, seed=1, engine="cpu", precision="bf16"))
    assert not torch.equal(*images)
