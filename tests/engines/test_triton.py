"""The Triton kernels in the interpreter, on the CPU, and compiled for GPUs that are not here."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import prsr
from prsr.engines import triton as engine_module
from prsr.engines.base import Job, draw
from prsr.engines.registry import ENGINES
from prsr.engines.torch import TorchEngine
from prsr.testing import cdf_violation, divergence_distance, with_rounded_operands

triton = pytest.importorskip("triton", reason="Triton is made for Linux only")
tl = pytest.importorskip("triton.language")
kernel_draw = pytest.importorskip("prsr.kernels.device_functions").draw

EPSILON = 1e-4
WIDE = {"channels": 1, "prior_channels": 17}  # where registers hold 16 features of a colour
GATES = {"conditional_gates": True, "conditioning_channels": 32}
ENGINE = next(engine for engine in ENGINES if engine.name == "triton")


CONFIGURATIONS = st.builds(
    dict,
    channels=st.sampled_from([1, 3]),
    levels=st.sampled_from([2, 7, 40]),
    prior_channels=st.integers(4, 33),
    prior_layers=st.integers(1, 3),
    prior_kernel=st.sampled_from([1, 3, 5]),
    first_kernel=st.sampled_from([3, 5]),
    head_channels=st.integers(3, 70),
    conditional_gates=st.booleans(),
    conditioning_channels=st.sampled_from([3, 32, 33]),
)


@settings(max_examples=3)
@example({**WIDE, "levels": 7}, 3, (1, 2), True)  # one program for all three
@example(GATES, 3, (1, 2), False)
@given(
    CONFIGURATIONS,
    st.sampled_from([1, 2, 3, 17]),
    st.sampled_from([(2, 2), (3, 2), (2, 3)]),
    st.booleans(),
)
def test_images_are_right(make_model, make_images, monkeypatch, changes, n, size, masked):
    monkeypatch.setattr("prsr.engines.triton_layout.WIDEST", 16)
    model = make_model(**changes)
    config, (h, w) = model.config, size
    lr = make_images(config, n, h, w)
    temperature = torch.linspace(0, 1.5, n + 1)[1:] * (torch.arange(n) != 1)  # the second greedy
    known = make_images(config, n, 2 * h, 2 * w, seed=1)
    mask = torch.rand(known.shape, generator=torch.Generator().manual_seed(2)) < 0.3
    fixed = {"known": known, "mask": mask} if masked else {}
    one, other = (
        prsr.sample(lr, temperature, model=model, seed=4, engine=name, **fixed)
        for name in ("triton", "torch")
    )
    noise = prsr.noise(4, n, 2 * h, 2 * w, config.channels)
    given_mask = mask if masked else None
    assert cdf_violation(model, lr, one, noise, temperature, given_mask).max() <= EPSILON
    assert divergence_distance(model, lr, one, other, noise, temperature).max() <= EPSILON
    if masked:
        assert torch.equal(one[mask], known[mask])


def make_job(model, make_images, n, height, width):
    """A job in which the image is given, so that all engines compute the same activations."""
    config = model.config
    image = make_images(config, n, height, width)
    random = torch.Generator().manual_seed(0)
    logits = torch.randn((n, config.levels, config.channels, height, width), generator=random)
    noise = prsr.noise(0, n, height, width, config.channels)
    features = torch.randn((n, config.gate_inputs, height, width), generator=random)
    mask = torch.ones_like(image, dtype=torch.bool)
    return Job(logits, features, noise, torch.ones(n), mask, image)


@pytest.fixture
def nearest(monkeypatch):
    """Makes the interpreter round to the nearest bfloat16, as GPUs do; of itself it cuts off."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cut = InterpreterBuilder.create_fp_trunc

    def rounded(self, source, wanted):
        if wanted.scalar != tl.bfloat16:
            return cut(self, source, wanted)
        bits = torch.from_numpy(source.data.copy()).bfloat16().view(torch.uint16)
        return TensorHandle(bits.numpy(), tl.bfloat16)

    monkeypatch.setattr(InterpreterBuilder, "create_fp_trunc", rounded)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(
    ("n", "changes"),
    [
        (1, {"prior_kernel": 5}),
        (3, {"prior_channels": 20}),
        (3, WIDE),
        (1, GATES),
        (3, GATES | {"conditioning_channels": 37}),  # no multiple of what a product takes
    ],
)
def test_layers_are_those_of_the_network_and_of_the_engine_torch(
    make_model, make_images, monkeypatch, nearest, precision, n, changes
):
    """In fp16 and bf16, those of the network that rounds the same operands."""
    monkeypatch.setattr("prsr.engines.triton_layout.WIDEST", 16)
    model = make_model(**changes)
    job = make_job(model, make_images, n, 3, 4)
    operand = engine_module.OPERANDS[precision]
    truth = model if precision == "fp32" else with_rounded_operands(model, operand)
    layers = truth.prior.stacks(job.image, job.features)
    state = ENGINE.start(ENGINE.pack(model.prior, precision), job)
    cached = TorchEngine()
    other = cached.start(cached.pack(model.prior, "fp32"), make_job(model, make_images, n, 3, 4))
    for y in range(3):
        ENGINE.row(state, y)
        cached.row(other, y)
        for layer in range(model.config.prior_layers):
            if precision == "fp32":
                probes = ENGINE.probe(state, layer), cached.probe(other, layer)
                assert_close(*probes, atol=1e-5, rtol=1e-4)
            for ours, theirs in zip(ENGINE.probe(state, layer), layers[layer], strict=True):
                if precision == "fp32":
                    assert_close(ours, theirs[:, :, y], atol=1e-5, rtol=1e-4)
                else:  # a sum in another order may round to the next number, rarely
                    kept = theirs[:, :, y].to(operand).float()
                    # Numbers of fp16 are eight times as close, and so is the next one.
                    share, rtol = (0.97, 2**-7) if precision == "bf16" else (0.9, 2**-10)
                    assert (ours == kept).float().mean() > share
                    assert_close(ours, kept, atol=1e-3, rtol=rtol)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_operands_are_rounded_and_nothing_else(make_model, make_images, nearest, precision):
    operand = engine_module.OPERANDS[precision]
    model = make_model(levels=40, head_channels=40, conditional_gates=True)
    lr = make_images(model.config, 16, 2, 2)
    image = prsr.sample(lr, model=model, seed=1, engine="triton", precision=precision)
    noise = prsr.noise(1, 16, 4, 4, model.config.channels)
    call = lr, image, noise, 1.0
    assert cdf_violation(with_rounded_operands(model, operand), *call).max() <= EPSILON
    only_head = copy.deepcopy(model)
    for layer in (only_head.prior.head[0], only_head.prior.head[2]):
        layer.weight.data = layer.weight.data.to(operand).float()
    for other in (model, only_head):
        assert cdf_violation(other, *call).max() > EPSILON
    packed = ENGINE.pack(model.prior, precision)
    for name, weight in (packed.vertical | packed.horizontal).items():
        exact = "first" in name or "bias" in name
        assert weight.dtype == (torch.float32 if exact else operand)


@triton.jit
def draw_rows(
    out, logits, noise, temperatures, K: tl.constexpr, N: tl.constexpr, LEVELS: tl.constexpr
):
    rows = tl.arange(0, N)
    level = tl.arange(0, LEVELS)
    at = logits + rows[:, None] * K + level[None, :]
    given = tl.load(at, mask=(level < K)[None, :] & (rows >= 0)[:, None], other=0.0)
    drawn = kernel_draw(given, tl.load(noise + rows), tl.load(temperatures + rows), K, LEVELS)
    tl.store(out + rows, drawn)


def test_an_edge_of_the_cdf_belongs_to_the_level_above():
    logits, noise = torch.zeros(16, 4), torch.tensor([0.0, 0.25, 0.5, 0.75] * 4)
    drawn = torch.zeros(16, dtype=torch.int32)
    draw_rows[(1,)](drawn, logits, noise, torch.ones(16), 4, 16, 4)
    assert drawn.tolist() == [0, 1, 2, 3] * 4


@pytest.mark.parametrize("temperature", [0.0, 1e-45, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("levels", [2, 7, 256])
def test_draw_in_the_kernel_is_the_draw(levels, temperature):
    random = torch.Generator().manual_seed(levels)
    logits = 3 * torch.randn((64, levels), generator=random)
    logits[torch.rand(logits.shape, generator=random) < 0.3] = -1e4
    logits[:4] = 0  # equal ones
    noise = torch.rand(64, generator=random)
    noise[::4], noise[1::4] = 0, 1 - 2.0**-24
    temperatures = torch.full((64,), temperature)
    drawn = torch.zeros(64, dtype=torch.int32)
    power = triton.next_power_of_2(levels)
    draw_rows[(1,)](drawn, logits, noise, temperatures, levels, 64, power)
    drawn = drawn.long()
    if temperature < 0.1:
        assert torch.equal(drawn, draw(logits, noise, temperatures))
        return
    p = (logits.double() / temperature).softmax(dim=1)
    cdf = p.cumsum(dim=1).gather(1, drawn[:, None])[:, 0]
    mass = p.gather(1, drawn[:, None])[:, 0]
    assert bool((mass > 0).all())
    assert bool(((cdf > noise - 1e-6) & (cdf - mass <= noise + 1e-6)).all())


class Barriers:
    """Notes what a program touches between two barriers, and complains of what threads could race.

    Which thread holds which element is the compiler's choice, so any read of what was written, and
    any write to what was read or written, since the last barrier is taken for a race; but for a
    write by the shape that read the same addresses just before: that is one sum, added to.
    """

    def __init__(self):
        self.written, self.read, self.complaints = {}, {}, set()

    def touch(self, pointers, mask, writes):
        alive = pointers.data[mask.data] if mask is not None else pointers.data
        for address in alive.ravel().tolist():
            if address in self.written:
                self.complaints.add("a read or write of what was written")
            if writes and self.read.get(address, pointers.data.shape) != pointers.data.shape:
                self.complaints.add("a write to what was read")
            (self.written if writes else self.read)[address] = pointers.data.shape

    def barrier(self):
        self.written.clear()
        self.read.clear()


@pytest.fixture
def barriers(monkeypatch):
    """A :class:`Barriers` that watches the interpreter."""
    from triton.runtime.interpreter import InterpreterBuilder

    watch = Barriers()
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def watched_load(self, ptrs, mask, *rest, **named):
        watch.touch(ptrs, mask, writes=False)
        return load(self, ptrs, mask, *rest, **named)

    def watched_store(self, ptrs, value, mask, *rest, **named):
        watch.touch(ptrs, mask, writes=True)
        return store(self, ptrs, value, mask, *rest, **named)

    monkeypatch.setattr(InterpreterBuilder, "create_masked_load", watched_load)
    monkeypatch.setattr(InterpreterBuilder, "create_masked_store", watched_store)
    monkeypatch.setattr(InterpreterBuilder, "create_barrier", lambda self: watch.barrier())
    return watch


@pytest.mark.parametrize(
    ("kernel", "changes", "period"),
    [(0, {}, 4), (1, {}, 10), (1, WIDE, 10)],
    ids=["vertical", "horizontal", "wide"],
)
@pytest.mark.parametrize("skipped", [None, 0, 1, 2, 3])
def test_barriers_order_all_that_threads_share(
    make_model, make_images, barriers, monkeypatch, kernel, changes, period, skipped
):
    """With every barrier, no race; without any one of a pixel's or a layer's, one."""
    monkeypatch.setattr("prsr.engines.triton_layout.WIDEST", 16)
    model = make_model(prior_layers=3, **changes)
    state = ENGINE.start(ENGINE.pack(model.prior, "fp32"), make_job(model, make_images, 1, 4, 4))
    ENGINE.row(state, 0)
    barriers.barrier()
    barriers.complaints.clear()
    passed = [-1]

    def counted(barrier=barriers.barrier):
        passed[0] += 1
        if skipped is None or passed[0] % period != skipped % period:
            barrier()

    monkeypatch.setattr(barriers, "barrier", counted)
    launch = engine_module.launches(state, 1)[kernel]
    launch.kernel[(launch.programs,)](**launch.arguments)
    assert passed[0] > 0
    assert bool(barriers.complaints) == (skipped is not None)


def test_images_share_a_program_where_32_bits_reach():
    small, large = (torch.empty(3, 3, side, side, device="meta") for side in (580, 600))
    for operand, sharing in engine_module.SHARING.items():
        few = small[:2]  # no more than the interpreter's programs
        assert engine_module.together(few, 128, operand) == (1, 1)
        assert engine_module.together(small, 2048 // sharing[1], operand) == sharing
        assert engine_module.together(large, 2048 // sharing[1], operand) == (1, 1)


def test_reasons_against_it(monkeypatch):
    cpu = torch.device("cpu")
    assert ENGINE.reasons(prsr.PRSRConfig(channels=1, prior_channels=4096), cpu, "bf16") == []
    monkeypatch.delenv("TRITON_INTERPRET")
    assert ENGINE.reasons(prsr.PRSRConfig(), cpu, "fp32") == [
        "it runs on GPUs, but the model is on cpu"
    ]
    monkeypatch.setattr(engine_module, "find_spec", lambda name: None)
    assert ENGINE.reasons(prsr.PRSRConfig(), cpu, "fp32") == [
        "Triton is not installed; torch's GPU builds include it"
    ]


@pytest.mark.parametrize(("precision", "weight"), [("fp16", 65520.0), ("bf16", 3.4e38)])
def test_weights_that_a_precision_cannot_hold_are_refused(make_model, precision, weight):
    model = make_model()
    with torch.no_grad():
        model.prior.head[2].weight[0, 0] = weight
    with pytest.raises(ValueError, match=f"the prior's weights in {precision} must be finite"):
        ENGINE.pack(model.prior, precision)


def compiled_kernels(preset, architecture):
    """What ``benchmarks.kernels`` prints, as dictionaries."""
    command = [sys.executable, "-m", "benchmarks.kernels", "--json", "--preset", preset]
    run = subprocess.run(
        [*command, "--architectures", str(architecture)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_kernels_compile_for_gpus_without_spilling(architecture, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")  # which tests set for what runs on the CPU
    compiled = compiled_kernels("paper", architecture)
    # One after the other: the horizontal kernel is the same, and Triton keeps what it compiled.
    compiled += compiled_kernels("paper-conditional", architecture)
    assert {(c["kernel"], c["precision"], c["together"], c["masked"]) for c in compiled} == {
        (kernel, precision, together, masked)
        for precision in ("fp32", "fp16", "bf16")
        for kernel, most, masked in (
            ("vertical_row", 4, False),
            ("horizontal_row", 8 if precision == "fp32" else 16, False),
            ("horizontal_row", 8 if precision == "fp32" else 16, True),
        )
        for together in (1, most)
    }
    for c in compiled:
        assert c["registers"] * 32 * c["warps"] <= 2**16, c  # what a multiprocessor has
        assert c["shared"] <= 99 * 1024, c  # what the smallest of these GPUs lets a program have
        assert (c["tensor"] > 0) == (c["precision"] != "fp32"), c
        assert c["spilled"] == 0, c


def test_kernels_for_wide_colours_compile(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    code = """
from benchmarks.kernels import LAUNCHES, compile_launch, options, variants
from prsr import PRSRConfig
config = PRSRConfig(channels=1, levels=2, prior_channels=130, prior_layers=2, head_channels=9)
for precision in "fp32", "fp16":
    _, horizontal, _, _, tile, _ = variants(config, precision)
    for launch in horizontal, tile:
        compiled = compile_launch(launch, precision, 90, options(LAUNCHES["horizontal_row"][0]))
        assert (compiled.tensor > 0) == (precision == "fp16")
        assert compiled.shared <= 99 * 1024
"""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
