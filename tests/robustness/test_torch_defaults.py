"""Calls and models ignore torch's process-wide defaults and do not change them."""

import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import prsr
from prsr import PRSR, Sampler
from prsr.sampling.sampler import default_model
from prsr.testing import cdf_violation

ENGINES = ["cpu", "torch", "reference"]


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


DEFAULTS = {
    "device": lambda: torch.device("meta"),
    "dtype": default_dtype,
    "no gradient": torch.no_grad,
    "inference": torch.inference_mode,
    "deterministic": deterministic,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def state():
    return (
        torch.get_default_device(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
    )


@pytest.fixture
def saved(make_model, tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", DEFAULTS)
def test_loading_a_model_ignores_the_defaults(saved, name):
    expected = PRSR.from_pretrained(saved)
    with DEFAULTS[name]():
        before = state()
        model = PRSR.from_pretrained(saved)
        assert state() == before
    for key, value in expected.state_dict().items():
        own = model.state_dict()[key]
        assert (own.device, own.dtype) == (value.device, value.dtype)
        assert torch.equal(own, value)
    assert all(p.requires_grad and not p.is_inference() for p in model.parameters())
    assert not any(buffer.is_inference() or buffer.is_meta for buffer in model.buffers())


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_call_ignores_and_keeps_the_defaults(saved, make_images, name, engine):
    model = PRSR.from_pretrained(saved)
    lr = make_images(model.config, 3, 2, 2)
    temperature = 0.8
    expected = Sampler(model, engine=engine).sample(lr, temperature, seed=3, num_samples=2)
    with DEFAULTS[name]():
        before = state()
        drawn = prsr.sample(lr, temperature, model=model, engine=engine, seed=3, num_samples=2)
        rows = list(Sampler(model, engine=engine).rows(lr, temperature, seed=3, num_samples=2))
        from_array = prsr.sample(lr.numpy(), temperature, model=model, engine=engine, seed=3)
        assert state() == before
        prsr.sample(lr, model=model, engine=engine)  # takes its seed from the generator
    for result in (drawn, rows[-1]):
        assert torch.equal(result, expected)
    assert torch.equal(from_array, expected[:, 0])


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_cached_default_model_ignores_the_defaults(name):
    default_model.cache_clear()
    lr = np.zeros((1, 3, 2, 2), np.uint8)
    try:
        with DEFAULTS[name]():
            first = prsr.sample(lr, seed=1)
        assert torch.equal(prsr.sample(lr, seed=1), first)
        assert all(
            not p.is_inference() and p.device.type == "cpu" for p in default_model().parameters()
        )
    finally:
        default_model.cache_clear()


@pytest.mark.parametrize("name", DEFAULTS)
def test_cdf_violation_and_bits_per_dim_ignore_the_defaults(saved, make_images, name):
    model = PRSR.from_pretrained(saved)
    lr, hr = make_images(model.config, 2, 2, 2), make_images(model.config, 2, 4, 4)

    given = prsr.noise(0, 2, 4, 4, 3)
    expected = cdf_violation(model, lr, hr, given, 1.0), prsr.bits_per_dim(model, lr, hr)
    with DEFAULTS[name]():
        values = cdf_violation(model, lr, hr, given, 1.0), prsr.bits_per_dim(model, lr, hr)
    assert torch.allclose(values[0].to(expected[0].dtype), expected[0], atol=1e-5)
    # Autocast is the documented way to compute bits per dimension in mixed precision.
    assert torch.allclose(values[1], expected[1], atol=1e-2 if name == "autocast" else 1e-5)


AGAIN = """
import sys
import numpy as np
lr = np.zeros((2, 3, 2, 2), np.uint8)
kept, drawn = [], []
for _ in range(3):
    import prsr
    drawn.append(prsr.sample(lr, seed=1, engine="cpu").numpy())
    kept.append({KEPT})
    for name in [name for name in sys.modules if name.partition(".")[0] == "prsr"]:
        del sys.modules[name]
assert (drawn[0] == drawn[1]).all() and (drawn[0] == drawn[2]).all()
"""


@pytest.mark.parametrize("kept", ["prsr", "None"])
def test_prsr_can_be_imported_again(kept):
    script = AGAIN.replace("{KEPT}", kept)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
