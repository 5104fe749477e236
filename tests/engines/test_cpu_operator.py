"""The operator ``draw_rows`` of the engine ``cpu``: what it accepts, checks and writes."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

import prsr
from prsr import PRESETS
from prsr.engines.base import Job
from prsr.engines.cpu import PARTS, CPUEngine
from prsr.engines.cpu_layout import PriorConfig
from prsr.engines.native import instruction_sets
from prsr.sampling.conditioning import Conditioner
from prsr.testing import cdf_violation, with_rounded_operands

pytestmark = [
    pytest.mark.sanitize,
    pytest.mark.skipif(
        not instruction_sets(), reason="the extension is not built: there was no compiler"
    ),
]


def job_of(model, make_images, n=2):
    lr = make_images(model.config, n, 1, 2)
    image = torch.zeros((n, 3, 2, 4), dtype=torch.uint8)
    conditioning = Conditioner(model.conditioning, model.config, lr.device)(lr)
    return Job(*conditioning, prsr.noise(0, n, 2, 4, 3), torch.ones(n), None, image)


def operands(make_model, make_images):
    model, engine = make_model(conditional_gates=True), CPUEngine()
    state = engine.start(engine.pack(model.prior, "fp32"), job_of(model, make_images))
    return {**state.parts[0].operands, "seconds": None, "y": 0, "end": 1}


def operands_with_last_layer(make_model, make_images):
    model, engine = make_model(), CPUEngine()
    job = job_of(model, make_images)
    conditioner = Conditioner(model.conditioning, model.config, job.noise.device, last_layer=True)
    job.conditioning = conditioner(make_images(model.config, 2, 1, 2)).logits
    state = engine.start(engine.pack(model.prior, "fp32"), job)
    return {**state.parts[0].operands, "seconds": None, "y": 0, "end": 1}


def test_an_instruction_set_that_is_not_here_is_refused_by_the_operator(make_model, make_images):
    given = operands(make_model, make_images) | {"instruction_set": "altivec"}
    with pytest.raises(ValueError, match="no instruction set altivec here"):
        torch.ops.prsr.draw_rows(**given)


@pytest.mark.quick
def test_the_operator_is_what_torch_expects_of_one(make_model, make_images):
    given = operands(make_model, make_images)
    torch.library.opcheck(torch.ops.prsr.draw_rows.default, (), given)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("image", lambda tensor: tensor.int()),
        ("image", lambda tensor: tensor.flip(3).transpose(0, 1).contiguous().transpose(0, 1)),
        ("noise", lambda tensor: tensor[:1]),
        ("noise", lambda tensor: tensor.double()),
        ("conditioning", lambda tensor: tensor[..., :1]),
        ("conditioning", lambda tensor: tensor[..., 0]),
        ("image", lambda tensor: tensor[0]),
        ("last_bias", lambda _: torch.zeros(32)),
        ("last_bias", lambda _: torch.zeros(31)),
        ("features", lambda tensor: tensor[..., :-1, :]),
        ("features", lambda tensor: tensor.transpose(1, 2).contiguous().transpose(1, 2)),
        ("conditioning", lambda tensor: tensor.flip(1).transpose(3, 4).contiguous()),
        ("temperature", lambda tensor: tensor.expand(2, 2)[0].expand(3, 2)[:, 0]),
        ("vertical", lambda tensor: tensor[:, :1]),
        ("ahead", lambda tensor: tensor[:, 1:]),
        ("seconds", lambda _: torch.zeros(3, dtype=torch.float64)),
        ("horizontal", lambda tensor: tensor[..., ::2, :]),
        ("weights", lambda tensor: tensor[1:]),
        ("weights", lambda tensor: tensor[:16]),
        ("weights", lambda tensor: tensor[:-1]),
        ("offsets", lambda tensor: tensor[:-1]),
        ("offsets", lambda tensor: tensor + 16),
        ("offsets", lambda tensor: tensor.where(tensor != tensor[1], 10**9)),
        ("bundle", lambda _: 2),
        ("bundle", lambda _: 8),
        ("y", lambda _: 1),
        ("y", lambda _: -1),
        ("end", lambda _: 3),
    ],
)
def test_what_cpp_could_not_check_is_refused_before_it(make_model, make_images, name, change):
    given = operands(make_model, make_images)
    given[name] = change(given[name])
    with pytest.raises(ValueError, match=rf"\b{name}\b.*got"):
        torch.ops.prsr.draw_rows(**given)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("last_weights", lambda tensor: tensor[16:]),
        ("last_weights", lambda tensor: tensor.double()),
        ("last_weights", lambda _: None),
        ("last_bias", lambda tensor: tensor[1:]),
        ("last_bias", lambda _: None),
        ("conditioning", lambda tensor: tensor[:, :1]),
        ("conditioning", lambda tensor: tensor[0, 0, 0]),
        ("conditioning", lambda tensor: tensor.transpose(1, 2).contiguous().transpose(1, 2)),
    ],
)
def test_a_last_layer_is_checked_like_the_rest(make_model, make_images, name, change):
    given = operands_with_last_layer(make_model, make_images)
    torch.ops.prsr.draw_rows(**given)
    given[name] = change(given[name])
    with pytest.raises(ValueError, match=r"\b(conditioning|last_weights|last_bias)\b.*got"):
        torch.ops.prsr.draw_rows(**given)


@pytest.mark.parametrize("of", [operands, operands_with_last_layer])
def test_a_tensor_without_dimensions_is_refused_by_its_name(make_model, make_images, of):
    given = of(make_model, make_images)
    tensors = [name for name, value in given.items() if isinstance(value, torch.Tensor)]
    assert len(tensors) > 10
    for name in tensors:
        with pytest.raises(ValueError, match=rf"^{name} must .*, got"):
            torch.ops.prsr.draw_rows(**given | {name: given[name].new_zeros(())})


def test_the_extension_takes_every_field_by_its_name_and_no_other():
    struct = import_module("prsr._native").PriorConfig
    fields = PriorConfig.of(PRESETS["tiny"], "fp32")._asdict()
    struct(**fields)
    for name in fields:
        with pytest.raises(TypeError, match=f"no field {name} given"):
            struct(**{k: v for k, v in fields.items() if k != name})
    with pytest.raises(TypeError, match="unknown fields given"):
        struct(**fields, seed=0)


@pytest.mark.parametrize("name", ["noise", "weights", "image"])
def test_a_tensor_without_memory_is_refused(make_model, make_images, name):
    given = operands(make_model, make_images)
    given[name] = given[name].to("meta")
    with pytest.raises(ValueError, match="device of every tensor must be cpu, got meta"):
        torch.ops.prsr.draw_rows(**given)


@pytest.mark.quick
@pytest.mark.instruction_set
@pytest.mark.parametrize("n", [2, 16, 17])
@pytest.mark.parametrize("gates", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_outside_the_caches_is_written(
    make_model, make_images, threads, precision, gates, n
):
    # NaN before and behind every cache: what is read there must not matter, and it must stay.
    threads(1)
    model, engine = make_model(conditional_gates=gates), CPUEngine()
    job = job_of(model, make_images, n)
    state = engine.start(engine.pack(model.prior, precision), job)
    around = []
    for part in state.parts:
        for name in (*part.caches, "features"):
            cache = part.operands[name]
            memory = torch.full((cache.numel() + 96,), torch.nan)
            start = 48 - memory.data_ptr() // 4 % 16
            inside = memory[start : start + cache.numel()].view(cache.shape).copy_(cache)
            part.operands[name] = inside
            around.append((memory, start, start + cache.numel()))
    for y in range(2):
        engine.row(state, y)
    for memory, start, end in around:
        assert bool(memory[:start].isnan().all())
        assert bool(memory[end:].isnan().all())
        assert not bool(memory[start:end].isnan().any())
    lr = make_images(model.config, n, 1, 2)
    exact = model if precision == "fp32" else with_rounded_operands(model)
    assert cdf_violation(exact, lr, job.image, job.noise, 1.0).max() <= 1e-4


def test_time_goes_into_all_parts_of_a_row(make_model, make_images):
    model, engine = make_model(), CPUEngine()
    state = engine.start(engine.pack(model.prior, "fp32"), job_of(model, make_images))
    engine.row(state, 0)
    state.seconds = torch.zeros(len(PARTS), dtype=torch.float64)
    engine.row(state, 1)
    assert bool((state.seconds > 0).all())
