"""A call depends on the current model only and leaves no state behind."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from weakref import WeakKeyDictionary

import pytest
import torch
from torch import nn

import prsr
from prsr import Sampler
from prsr.engines import packed_weights
from prsr.engines.cpu import CPUEngine
from prsr.engines.torch import TorchEngine
from prsr.models.eval_mode import evaluating
from prsr.utils.torch_threads import FEW_IMAGES, single_threaded_section

RAMP = torch.linspace(-3, 3, 24)


@pytest.fixture
def lr(model, make_images):
    return make_images(model.config, 3, 2, 3)


def test_rows_restore_the_callers_settings_between_rows(sampler, lr):
    for _ in sampler.rows(lr, seed=1):
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")


def test_interruption_propagates_and_leaves_no_state(sampler, lr, monkeypatch):
    expected = sampler.sample(lr, seed=1)
    plain = TorchEngine.row

    def interrupted(engine, state, y):
        plain(engine, state, y)
        if y == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TorchEngine, "row", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Sampler(sampler.model, engine="torch").sample(lr, seed=1)
        interrupted_sampler = Sampler(sampler.model, engine="torch")
        with pytest.raises(KeyboardInterrupt):
            interrupted_sampler.sample(lr, seed=1)
    assert torch.is_grad_enabled()
    assert torch.equal(interrupted_sampler.sample(lr, seed=1), expected)


def step(model):
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=10)
    hr = torch.zeros((1, 3, 4, 4), dtype=torch.uint8)
    prsr.prsr_loss(model(hr[:, :, :2, :2], hr), hr).backward()
    optimizer.step()
    model.eval()


@pytest.mark.parametrize(
    "change",
    [
        step,
        lambda model: model.prior.blocks[0].mix.weight.data.mul_(-1),
        lambda model: model.prior.head[2].bias.data.numpy().fill(0),
        lambda model: model.load_state_dict(model.state_dict() | {"prior.head.2.bias": RAMP}),
        lambda model: model.prior.load_state_dict(
            {k: v.neg() for k, v in model.prior.state_dict().items()}, assign=True
        ),
        lambda model: nn.init.zeros_(model.conditioning[-1].weight),
        lambda model: model.prior.to(torch.bfloat16),
    ],
    ids=["optimizer", "data", "numpy", "load", "assign", "conditioning", "dtype"],
)
@pytest.mark.parametrize("engine", ["torch", "reference"])
def test_changed_weights_are_used_by_the_next_call(model, lr, engine, change):
    lr = lr[:2]
    sampler = Sampler(model, engine=engine)
    before = sampler.sample(lr, seed=1)
    change(model)
    after = sampler.sample(lr, seed=1)
    assert torch.equal(after, Sampler(model, engine=engine).sample(lr, seed=1))
    assert not torch.equal(after, before)


@pytest.fixture
def packings(monkeypatch):
    """The names of the engines that have packed weights, one for each packing."""
    names = []
    for engine in (CPUEngine, TorchEngine):
        plain = engine.pack
        monkeypatch.setattr(
            engine,
            "pack",
            lambda self, *call, plain=plain: names.append(self.name) or plain(self, *call),
        )
    return names


def test_unchanged_weights_are_packed_once_for_each_engine_and_precision(model, lr, packings):
    """By any number of samplers and calls of the function."""
    for seed in range(3):
        for engine in ("cpu", "torch"):
            prsr.sample(lr[:1], model=model, engine=engine, seed=seed)
            Sampler(model, engine=engine).sample(lr[:1], seed=seed)
            list(Sampler(model, engine=engine).rows(lr[:1], seed=seed))
        prsr.sample(lr[:1], model=model, precision="bf16", seed=seed)
    assert sorted(packings) == ["cpu", "cpu", "torch"]


def test_changed_weights_are_packed_again_for_every_engine(model, lr, packings):
    for _ in range(2):
        for engine in ("cpu", "torch", "cpu", "torch"):
            prsr.sample(lr[:1], model=model, engine=engine, seed=0)
        model.prior.head[2].bias.data.neg_()
    assert packings == ["cpu", "torch"] * 2


def test_the_function_uses_changed_weights(model, lr):
    before = prsr.sample(lr, model=model, seed=1)
    model.prior.head[2].bias.data.copy_(RAMP)
    after = prsr.sample(lr, model=model, seed=1)
    assert torch.equal(after, prsr.sample(lr, model=copy.deepcopy(model), seed=1))
    assert not torch.equal(after, before)


def test_the_default_model_is_packed_once(packings, monkeypatch):
    monkeypatch.setattr(packed_weights, "_kept", WeakKeyDictionary())
    batch = torch.zeros((1, 3, 1, 1), dtype=torch.uint8)
    for seed in range(3):
        prsr.sample(batch, seed=seed)
    assert packings == ["cpu"]


@pytest.mark.parametrize("engine", ["cpu", "torch", "reference"])
def test_sampling_does_not_keep_a_model_alive(make_model, lr, engine):
    def sampled():
        model = make_model()
        model.prior.head[0].register_full_backward_hook(lambda *_: model)
        prsr.sample(lr[:1], model=model, engine=engine, seed=1)
        return weakref.ref(model.prior)

    reference = sampled()
    gc.collect()
    assert reference() is None


def test_an_engine_that_calls_the_prior_notices_new_hooks(model, lr):
    sampler = Sampler(model, engine="reference")
    sampler.sample(lr[:1], seed=1)
    called = []
    model.prior.head[1].register_forward_hook(lambda *_: called.append(1))
    sampler.sample(lr[:1], seed=1)
    assert called


def test_sampling_keeps_the_models_modes_and_statistics(sampler, lr):
    model = sampler.model
    expected = sampler.sample(lr, seed=1)
    model.train()
    model.conditioning[1].eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(sampler.sample(lr, seed=1), expected)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_modes_are_restored_when_conditioning_fails(sampler, lr):
    sampler.model.train()
    sampler.model.conditioning[-1].weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="conditioning"):
        sampler.sample(lr)
    assert all(module.training for module in sampler.model.modules())
    assert torch.is_grad_enabled()


def test_modes_are_restored_when_conditioning_is_interrupted(sampler, lr):
    def interrupted(*call):
        raise KeyboardInterrupt

    sampler.model.train().conditioning.register_forward_hook(interrupted)
    with pytest.raises(KeyboardInterrupt):
        sampler.sample(lr)
    assert all(module.training for module in sampler.model.modules())
    with evaluating(sampler.model):
        assert not sampler.model.conditioning.training
    assert sampler.model.conditioning.training


def test_arguments_are_not_modified(sampler, lr):
    known, mask = torch.ones((3, 3, 4, 6), dtype=torch.uint8), torch.tensor([True, False] * 3)
    temperature = torch.full((3,), 0.5)
    given = lr, known, mask, temperature
    copies = [tensor.clone() for tensor in given]
    sampler.sample(lr, temperature, seed=1, known=known, mask=mask)
    assert all(map(torch.equal, given, copies))


def test_torchs_generator_is_used_only_without_a_seed(sampler, lr):
    torch.manual_seed(5)
    first, second = sampler.sample(lr), sampler.sample(lr)
    torch.manual_seed(5)
    assert torch.equal(sampler.sample(lr), first)
    assert not torch.equal(first, second)
    state = torch.get_rng_state()
    sampler.sample(lr, seed=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_autocast_and_inference_mode_around_the_call_change_nothing(sampler, lr):
    expected = sampler.sample(lr, 0.9, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sampler.sample(lr, 0.9, seed=1), expected)
        assert torch.equal(list(sampler.rows(lr, 0.9, seed=1))[-1], expected)
        assert torch.is_autocast_enabled("cpu")
    with torch.inference_mode():
        fresh = Sampler(sampler.model)
        assert torch.equal(fresh.sample(lr, 0.9, seed=1), expected)
    assert torch.equal(fresh.sample(lr, 0.9, seed=1), expected)
    temperature = torch.tensor(0.9, requires_grad=True)
    assert torch.equal(sampler.sample(lr, temperature, seed=1), expected)


def test_arithmetic_is_plain_fp32_under_any_settings_of_the_caller(sampler, lr, monkeypatch):
    def settings():
        return (
            torch.get_float32_matmul_precision(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.is_inference_mode_enabled(),
        )

    expected, inside, plain = sampler.sample(lr, seed=1), set(), TorchEngine.row
    sampler.model.conditioning.register_forward_hook(lambda *_: inside.add(settings()))
    monkeypatch.setattr(TorchEngine, "row", lambda *call: inside.add(settings()) or plain(*call))
    torch.set_float32_matmul_precision("medium")
    try:
        for around in (torch.enable_grad(), torch.autocast("cpu"), torch.inference_mode()):
            with around:
                before = settings()
                drawn = Sampler(sampler.model, engine="torch").sample(lr, seed=1)
                assert torch.equal(drawn, expected)
                assert settings() == before
        assert inside == {("highest", False, False, False)}
    finally:
        torch.set_float32_matmul_precision("highest")


def test_threads_that_share_a_model_restore_its_modes(sampler, lr):
    model = sampler.model.train()
    meet = threading.Barrier(4)

    def work():
        meet.wait()
        for seed in range(4):
            sampler.sample(lr[:1], seed=seed)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(module.training for module in model.modules())


def test_nested_evaluating_contexts_restore_the_modes(model):
    model.train()
    model.prior.eval()
    with evaluating(model.conditioning):
        with evaluating(model):
            assert not any(module.training for module in model.modules())
        assert model.training
        assert not any(module.training for module in model.conditioning.modules())
    assert model.conditioning.training
    assert not model.prior.training


def test_rows_started_in_inference_mode_continue_outside_it(sampler, lr):
    expected = sampler.sample(lr, seed=1)
    with torch.inference_mode():
        rows = sampler.rows(lr, seed=1)
        next(rows)
    assert torch.equal(list(rows)[-1], expected)


def test_rows_copy_their_arguments(sampler, lr):
    given = {"temperature": torch.ones(3), "known": torch.ones((3, 3, 4, 6), dtype=torch.uint8)}
    given |= {"mask": torch.rand((3, 3, 4, 6)) < 0.5}
    expected = sampler.sample(lr, seed=1, **given)
    batch = lr.clone()
    rows = sampler.rows(batch, seed=1, **given)
    for tensor in (batch, *given.values()):
        tensor.zero_()
    assert torch.equal(list(rows)[-1], expected)


def test_two_threads_may_share_a_sampler(sampler, lr):
    expected = [sampler.sample(lr, seed=seed) for seed in range(8)]
    shared, meet, images = Sampler(sampler.model), threading.Barrier(2), {}

    def work(seeds):
        meet.wait()
        for seed in seeds:
            images[seed] = shared.sample(lr, seed=seed)

    threads = [threading.Thread(target=work, args=(range(i, 8, 2),)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(images[seed], expected[seed]) for seed in range(8))


def test_another_default_dtype_changes_nothing(sampler, model, lr):
    expected = sampler.sample(lr, seed=1)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(Sampler(model).sample(lr, seed=1), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_single_threaded_section_restores_the_thread_count():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with single_threaded_section(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        with single_threaded_section(FEW_IMAGES):
            assert torch.get_num_threads() == 3
        seen, inside, done = [], threading.Event(), threading.Event()
        other = threading.Thread(
            target=lambda: (inside.wait(), seen.append(torch.get_num_threads()), done.set())
        )
        other.start()
        with single_threaded_section(1):
            inside.set()
            assert done.wait(10)
        other.join()
        assert seen == [3]
    finally:
        torch.set_num_threads(before)
