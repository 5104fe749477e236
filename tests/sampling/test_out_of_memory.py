"""A GPU that runs out of memory, simulated on the CPU."""

from __future__ import annotations

import pytest
import torch

from prsr.engines.cpu import CPUEngine
from prsr.engines.reference import ReferenceEngine
from prsr.engines.triton import TritonEngine
from prsr.sampling import sampler as sampling
from prsr.sampling import slice_size
from prsr.sampling.conditioning import Conditioner
from prsr.sampling.sampler import Sampler

ENGINES = {"cpu": CPUEngine, "reference": ReferenceEngine}


@pytest.fixture
def lr(make_model, make_images):
    return make_images(make_model().config, 7, 2, 1)


def shortage(monkeypatch, engine, most, method, error=torch.OutOfMemoryError):
    """Let a method of an engine fail for more than ``most`` images; returns the sizes it saw."""
    sizes = []
    original = getattr(ENGINES[engine], method)

    def limited(self, *call):
        images = len(call[1].image if method == "start" else call[0].job.image)
        sizes.append(images)
        # A row fails in the middle of an image, when some rows are finished.
        if images > most and (method == "start" or call[1] == 2):
            raise error("tried to allocate 2.00 GiB")
        return original(self, *call)

    monkeypatch.setattr(ENGINES[engine], method, limited)
    return sizes


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_slices_are_halved_until_they_fit(make_model, lr, monkeypatch, error):
    sampler = Sampler(make_model(), engine="cpu")
    if sampler.engine != "cpu":
        pytest.skip("the C++ engine is not built")
    expected = sampler.sample(lr, seed=1)
    sizes = shortage(monkeypatch, "cpu", 2, "start", error)
    assert torch.equal(sampler.sample(lr, seed=1), expected)
    assert sizes == [7, 4, 2, 2, 2, 1]


def test_rows_that_were_finished_are_drawn_again(make_model, lr, monkeypatch):
    """With known sub-pixels, and with progress that ends at the number of rows."""
    sampler = Sampler(make_model(), engine="reference")
    shape = len(lr), 3, 4, 2
    call = {
        "seed": 1,
        "known": torch.full(shape, 2, dtype=torch.uint8),
        "mask": torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.3,
        "num_samples": 2,
    }
    expected = sampler.sample(lr, **call)
    sizes = shortage(monkeypatch, "reference", 5, "row")
    steps = []
    request, _ = sampler._request(lr, 1.0, *(call.get(k) for k in ("seed", "num_samples")),
                                  call["known"], call["mask"], 0)  # fmt: skip
    images = sampler._draw(request, steps.append)
    assert torch.equal(request.grouped(images), expected)
    assert sum(steps) == 14 * 4
    # Of slices of 14 and 7, two rows were finished in vain.
    assert steps[:6] == [14, 14, -28, 7, 7, -14]
    assert set(sizes) == {14, 7, 4, 2}


def test_a_single_sample_that_does_not_fit_is_an_error(make_model, lr, monkeypatch):
    sampler = Sampler(make_model(), engine="reference")
    shortage(monkeypatch, "reference", 0, "start")
    wanted = "a single sample does not fit in the free memory: tried to allocate 2.00 GiB"
    with pytest.raises(torch.OutOfMemoryError, match=wanted):
        sampler.sample(lr, seed=1)


def test_streaming_says_what_would_fit(make_model, lr, monkeypatch):
    sampler = Sampler(make_model(), engine="reference")
    monkeypatch.setattr(sampling, "fit_in_free_memory", lambda *call: 3)
    shortage(monkeypatch, "reference", 3, "row")
    rows = sampler.rows(lr, seed=1)
    for _ in range(2):
        next(rows)
    wanted = r"7 samples at a time do not fit in the free memory; about 3 would\. .* 2\.00 GiB"
    with pytest.raises(torch.OutOfMemoryError, match=wanted):
        next(rows)
    assert len(list(sampler.rows(lr[:3], seed=1))) == 4


def test_other_errors_pass(make_model, lr, monkeypatch):
    sampler = Sampler(make_model(), engine="reference")
    shortage(monkeypatch, "reference", 0, "start", RuntimeError)
    with pytest.raises(RuntimeError, match=r"^tried to allocate"):
        sampler.sample(lr, seed=1)


def test_an_estimate_of_what_fits_counts_the_free_memory(make_model, monkeypatch):
    model, engine = make_model(), TritonEngine()
    conditioner = Conditioner(model.conditioning, model.config, torch.device("cuda"))
    one = slice_size.sample_bytes(engine, conditioner, 32, 32)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * one + 1, 10**12))
    assert slice_size.fit_in_free_memory(engine, conditioner, 32, 32) == 5


@pytest.mark.parametrize("last_layer", [False, True])
def test_an_estimate_of_what_fits_on_a_cpu_is_a_slice(make_model, last_layer):
    """Whose size depends on whether the logits of all pixels are stored."""
    model, engine, cpu = make_model(), CPUEngine(), torch.device("cpu")
    conditioner = Conditioner(model.conditioning, model.config, cpu, last_layer=last_layer)
    expected = slice_size.per_slice(engine, conditioner, 32, 32)
    assert slice_size.fit_in_free_memory(engine, conditioner, 32, 32) == expected
