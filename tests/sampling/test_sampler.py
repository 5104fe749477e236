"""The public call: a seed gives the same sample in any batch, slice and shard."""

from __future__ import annotations

import contextlib
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress
from torch import nn

import prsr
from prsr import PRESETS, Sampler
from prsr.engines.cpu import CPUEngine
from prsr.engines.native import instruction_sets
from prsr.engines.torch import TorchEngine
from prsr.engines.triton import TritonEngine
from prsr.sampling import sampler as sampling
from prsr.sampling import slice_size as slices
from prsr.sampling.conditioning import Conditioner, conditioning_bytes
from prsr.testing import cdf_violation

pytestmark = pytest.mark.sanitize


@pytest.fixture
def lr(model, make_images):
    return make_images(model.config, 5, 2, 3)


def test_function_and_sampler_follow_the_noise(model, sampler, lr):
    image = prsr.sample(lr, 0.8, model=model, seed=2**64 - 1, first_index=7)
    assert image.shape == (5, 3, 4, 6)
    assert image.dtype == torch.uint8
    noise = prsr.noise(2**64 - 1, 5, 4, 6, 3, 7)
    assert cdf_violation(model, lr, image, noise, 0.8).max() <= 1e-4
    assert torch.equal(image, sampler.sample(lr, 0.8, seed=2**64 - 1, first_index=7))


def test_numpy_scalars_are_accepted_like_python_numbers(sampler, lr):
    expected = sampler.sample(lr, 0.5, seed=2**63, first_index=3, num_samples=2)
    drawn = sampler.sample(
        lr, np.float32(0.5), seed=np.uint64(2**63), first_index=np.int64(3), num_samples=np.int8(2)
    )
    assert torch.equal(drawn, expected)


def test_other_seeds_give_other_images(sampler, lr):
    images = [sampler.sample(lr, seed=seed) for seed in (0, 1, 2**32, 2**63)]
    assert len(torch.stack(images).unique(dim=0)) == 4


# Without triton, which takes minutes without a GPU; benchmarks/gpu.py runs this test with it.
@pytest.mark.parametrize(
    "engine",
    [name for name, against in prsr.list_engines().items() if not against and name != "triton"],
)
def test_image_is_the_same_in_any_batch_and_shard(model, lr, engine):
    sampler = Sampler(model, engine=engine)
    batch = sampler.sample(lr, seed=1, first_index=3)
    for i in range(5):
        assert torch.equal(sampler.sample(lr[i : i + 1], seed=1, first_index=3 + i)[0], batch[i])
    shards = [sampler.sample(lr[:2], seed=1, first_index=3)]
    shards.append(sampler.sample(lr[2:], seed=1, first_index=5))
    assert torch.equal(torch.cat(shards), batch)


def test_each_image_of_a_batch_has_its_own_noise(sampler, lr):
    same = lr[:1].expand(5, -1, -1, -1)
    assert len(sampler.sample(same, seed=1).unique(dim=0)) == 5


@pytest.mark.parametrize("num_samples", [None, 3])
def test_slicing_changes_nothing(sampler, lr, monkeypatch, num_samples):
    call = {
        "temperature": torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0]),
        "known": torch.full((5, 3, 4, 6), 2, dtype=torch.uint8),
        "mask": torch.rand((5, 3, 4, 6), generator=torch.Generator().manual_seed(0)) < 0.3,
        "num_samples": num_samples,
        "seed": 1,
    }
    expected = sampler.sample(lr, **call)
    for count in (1, 2, 4):
        monkeypatch.setattr(sampling, "per_slice", lambda *size, count=count, **options: count)
        assert torch.equal(sampler.sample(lr, **call), expected)


def test_batch_is_conditioned_in_slices_of_the_set_size(sampler, lr, monkeypatch):
    sizes, run = [], Conditioner.__call__
    monkeypatch.setattr(
        Conditioner, "__call__", lambda self, lr: sizes.append(len(lr)) or run(self, lr)
    )
    monkeypatch.setattr(sampling, "per_slice", lambda *size, **options: 2)
    sampler.sample(lr, seed=1)
    assert sizes == [2, 2, 1]


def test_samples_do_not_depend_on_their_number(sampler, lr):
    five = sampler.sample(lr, seed=1, num_samples=5)
    assert five.shape == (5, 5, 3, 4, 6)
    for count in (1, 2):
        assert torch.equal(sampler.sample(lr, seed=1, num_samples=count), five[:, :count])
    assert torch.equal(sampler.sample(lr, seed=1), five[:, 0])
    assert torch.equal(sampler.sample(lr[3:], seed=1, num_samples=2, first_index=3), five[3:, :2])
    assert len(five.flatten(0, 1).unique(dim=0)) == 25


def test_every_sample_has_its_own_noise(sampler, lr):
    images = sampler.sample(lr, seed=1, num_samples=3)
    for s in range(3):
        noise = prsr.noise(1, 5, 4, 6, 3, sample=s)
        assert cdf_violation(sampler.model, lr, images[:, s], noise, 1.0).max() <= 1e-4


def test_temperature_may_differ_by_image(sampler, lr):
    temperatures = [0.0, 0.3, 1.0, 2.0, 5.0]
    batch = sampler.sample(lr, torch.tensor(temperatures), seed=1)
    for i, temperature in enumerate(temperatures):
        assert torch.equal(batch[i], sampler.sample(lr, temperature, seed=1)[i])
    assert torch.equal(batch[0], sampler.sample(lr, 0, seed=99)[0])


@pytest.mark.parametrize("num_samples", [None, 2])
def test_rows_are_growing_parts_of_the_sampled_image(sampler, lr, num_samples):
    expected = sampler.sample(lr, 0.7, seed=1, num_samples=num_samples)
    rows = list(sampler.rows(lr, 0.7, seed=1, num_samples=num_samples))
    assert len(rows) == 4
    for y, image in enumerate(rows):
        assert torch.equal(image, expected[..., : y + 1, :])


def test_rows_of_an_empty_batch_have_growing_heights(sampler, lr):
    rows = list(sampler.rows(lr[:0], seed=1))
    assert [tuple(image.shape) for image in rows] == [(0, 3, y + 1, 6) for y in range(4)]
    assert sampler.sample(lr[:0], seed=1).shape == (0, 3, 4, 6)


def test_rows_may_be_overwritten_by_the_caller(sampler, lr):
    expected = sampler.sample(lr, seed=1)
    for image in sampler.rows(lr, seed=1):
        last = image.clone()
        image.zero_()
    assert torch.equal(last, expected)


def test_rows_closed_early_leave_the_sampler_usable(sampler, lr):
    expected = sampler.sample(lr, seed=1)
    rows = sampler.rows(lr, seed=2)
    next(rows)
    assert torch.equal(sampler.sample(lr, seed=1), expected)  # while the rows are still open
    rows.close()
    assert torch.equal(sampler.sample(lr, seed=1), expected)


def test_rows_checks_its_arguments_before_the_first_row(sampler, lr):
    with pytest.raises(ValueError, match="temperature"):
        sampler.rows(lr, -1)


class Constant(nn.Module):
    """A user's conditioning network: the same logits everywhere."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.level = nn.Parameter(torch.linspace(0, 1, config.levels))

    def forward(self, lr):
        n, channels, height, width = lr.shape
        s = self.config.scale
        return self.level[:, None, None, None].expand(n, -1, channels, s * height, s * width)


def test_any_object_with_the_parts_of_a_model_can_be_sampled(model, lr):
    model.conditioning = Constant(model.config)
    parts = SimpleNamespace(config=model.config, prior=model.prior, conditioning=model.conditioning)
    image = prsr.sample(lr, model=parts, seed=1)
    assert cdf_violation(model, lr, image, prsr.noise(1, 5, 4, 6, 3), 1.0).max() <= 1e-4
    assert torch.equal(prsr.sample(lr, model=model, seed=1), image)


def test_progress_counts_every_row_of_every_image(sampler, lr, monkeypatch):
    counts = []

    class Bar(contextlib.nullcontext):
        def __enter__(self):
            return self

        def add_task(self, name, total):
            counts.append(-total)
            return "task"

        def advance(self, task, rows):
            counts.append(rows)

        def remove_task(self, task):
            pass

    expected = sampler.sample(lr, seed=1, num_samples=2)
    monkeypatch.setattr("prsr.sampling.method.Progress", lambda **options: Bar())
    monkeypatch.setattr(sampling, "per_slice", lambda *size, **options: 3)
    assert torch.equal(sampler.sample(lr, seed=1, num_samples=2, progress=True), expected)
    assert counts[0] == -10 * 4
    assert sum(counts) == 0


def test_task_in_the_callers_progress_bar_is_removed_at_the_end(sampler, lr):
    totals = []

    class Recording(Progress):
        def add_task(self, *args, total, **kwargs):
            totals.append(total)
            return super().add_task(*args, total=total, **kwargs)

    with Recording(disable=True) as progress:
        sampler.sample(lr, seed=1, progress=progress)
        assert totals == [5 * 4]
        assert progress.tasks == []


def test_numpy_arrays_give_the_same_samples_as_tensors(sampler, lr):
    expected = sampler.sample(lr, seed=1)
    array = lr.numpy()
    locked = array.copy()
    locked.flags.writeable = False
    assert torch.equal(sampler.sample(array, seed=1), expected)
    assert torch.equal(sampler.sample(np.asfortranarray(array), seed=1), expected)
    assert torch.equal(sampler.sample(locked, seed=1), expected)
    flipped = sampler.sample(lr.flip(3), seed=1)
    assert torch.equal(sampler.sample(array[..., ::-1], seed=1), flipped)


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (3, "RGBA"), (3, "L"), (1, "L")])
def test_pillow_images_give_the_same_samples_as_tensors(make_model, channels, mode):
    model = make_model(channels=channels, levels=256)
    random = np.random.default_rng(0)
    pixels = random.integers(256, size=(2, 2, 3, channels), dtype=np.uint8)
    if mode == "L":
        pixels[...] = pixels[..., :1]
    images = [Image.fromarray(p.squeeze() if channels == 1 else p).convert(mode) for p in pixels]
    if channels == 3 and mode == "L":  # Pillow's grey of equal colours is that colour
        assert [np.asarray(p).tolist() for p in images] == pixels[..., 0].tolist()
    lr = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    sampler = Sampler(model)
    expected = sampler.sample(lr, seed=1)
    assert torch.equal(sampler.sample(images, seed=1), expected)
    assert torch.equal(sampler.sample(images[0], seed=1), expected[:1])


def test_pillow_images_are_converted_to_the_models_levels(sampler):
    grey = Image.fromarray(np.array([[0, 128, 255]], dtype=np.uint8))
    lr = torch.tensor([[[[0, 4, 7]]] * 1], dtype=torch.uint8).expand(1, 3, 1, 3)
    assert torch.equal(sampler.sample(grey, seed=1), sampler.sample(lr, seed=1))


def conditioner_of(model, device="cpu", config=None, *, last_layer=False):
    config = config or model.config
    return Conditioner(model.conditioning, config, torch.device(device), last_layer=last_layer)


@pytest.mark.parametrize("last_layer", [False, True])
def test_slices_of_the_engine_cpu_fill_whole_bundles_of_all_threads(
    model, monkeypatch, threads, last_layer
):
    threads(3)
    conditioner = conditioner_of(model, last_layer=last_layer)
    fit = 0.5, 1, 24, 25, 47, 49
    cases = (CPUEngine(), (1, 1, 24, 24, 24, 48)), (TorchEngine(), (1, 1, 24, 25, 47, 49))
    for engine, drawn in cases:
        one = slices.sample_bytes(engine, conditioner, 8, 8)
        for count, expected in zip(fit, drawn, strict=True):
            monkeypatch.setattr(slices, "SLICE_BYTES", int(count * one))
            assert slices.per_slice(engine, conditioner, 8, 8) == expected


def test_a_slice_counts_the_logits_of_all_rows_or_of_one():
    config = PRESETS["paper-conditional"]
    pixels = 32 * 64
    assert conditioning_bytes(config, 32, 64) == 4 * (256 * 3 + 32) * pixels
    assert conditioning_bytes(config, 32, 64, with_logits=False) == 4 * 32 * pixels
    of_row = 4 * 256 * 3 * 64
    for engine, more in ((CPUEngine(), of_row), (TorchEngine(), 0)):
        own = engine.bytes_per_image(config, 32, 64)
        assert own == 4 * (64 * 32 * 20 * (config.reach + 4) + 32 * pixels)
        assert engine.bytes_per_image(config, 32, 64, last_layer=True) == own + more


@pytest.mark.skipif(not instruction_sets(), reason="the extension is not built")
def test_a_sample_is_counted_with_what_the_conditioner_returns(model):
    config, engine = model.config, CPUEngine()
    for last_layer in (False, True):
        counted = slices.sample_bytes(engine, conditioner_of(model, last_layer=last_layer), 4, 6)
        assert counted == engine.bytes_per_image(
            config, 4, 6, last_layer=last_layer
        ) + conditioning_bytes(config, 4, 6, with_logits=not last_layer)


def test_slices_on_a_gpu_are_a_share_of_its_memory(model, monkeypatch):
    class Properties:
        total_memory = 2**33

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    engine, config = TritonEngine(), model.config
    of_gpu = conditioner_of(model, "cuda")
    logits = config.levels * config.channels * 32 * 32
    caches = 32 * config.prior_channels * config.prior_layers * (config.reach + 4)
    assert slices.per_slice(engine, of_gpu, 32, 32) == 2**30 // (4 * (logits + caches))
    assert slices.per_slice(engine, of_gpu, 2**14, 2**14) == 1
    gated = dataclasses.replace(config, conditional_gates=True)
    of_gpu = conditioner_of(model, "cuda", gated)
    features = 2 * gated.gate_inputs * 32 * 32  # the network's, and the engine's copy
    assert slices.per_slice(engine, of_gpu, 32, 32) == 2**30 // (4 * (logits + caches + features))


def test_samples_with_conditional_gates_do_not_depend_on_their_number(make_model, lr):
    sampler = Sampler(make_model(conditional_gates=True))
    three = sampler.sample(lr, seed=1, num_samples=3)
    assert torch.equal(sampler.sample(lr, seed=1, num_samples=1), three[:, :1])


def test_streaming_uses_the_weights_of_the_first_row(make_model, lr):
    """Also those of the conditioning network: the two networks never come from different times."""
    model = make_model()
    sampler = Sampler(model)
    rows = sampler.rows(lr, seed=1)
    model.load_state_dict(make_model(seed=1).state_dict())
    assert torch.equal(list(rows)[-1], sampler.sample(lr, seed=1))
