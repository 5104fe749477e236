"""The C++ engine beyond what holds for every engine: threads, instruction sets, forks, draws."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import prsr
from prsr import PRESETS, Sampler
from prsr.engines import native
from prsr.engines.base import Job
from prsr.engines.cpu import BUNDLE, CPUEngine
from prsr.engines.native import chosen_instruction_set, instruction_sets
from prsr.sampling.conditioning import Conditioner
from prsr.testing import cdf_violation, with_rounded_operands

pytestmark = [
    pytest.mark.sanitize,
    pytest.mark.skipif(
        not instruction_sets(), reason="the extension is not built: there was no compiler"
    ),
]

SMALL = (pytest.mark.quick, pytest.mark.instruction_set)
"""Marks of cases that every run of the tests has the time for."""


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param("tiny", {}, marks=SMALL),
        pytest.param("tiny", {"prior_kernel": 1, "levels": 200}, marks=SMALL),
        pytest.param(
            "tiny",
            {"prior_kernel": 5, "conditioning_channels": 5, "conditional_gates": True},
            marks=SMALL,
        ),
        pytest.param("tiny", {"prior_kernel": 5, "channels": 1, "head_channels": 150}, marks=SMALL),
        pytest.param("compact", {}, marks=pytest.mark.large),
        pytest.param("digits", {}, marks=pytest.mark.large),
    ],
)
@pytest.mark.parametrize("n", [1, 2, 5, 9, 26])
def test_images_are_bit_identical_with_any_threads_and_in_any_batch(
    make_model, make_images, threads, name, changes, n
):
    model = make_model(config=PRESETS[name], **changes)
    lr = make_images(model.config, n, 2, 3)
    sampler = Sampler(model, engine="cpu")
    images = []
    for count in (1, 2, 3, 5, 9):
        threads(count)
        images.append(sampler.sample(lr, seed=1))
    assert all(torch.equal(image, images[0]) for image in images)
    for i in range(0, n, 4):
        assert torch.equal(sampler.sample(lr[i : i + 1], seed=1, first_index=i)[0], images[0][i])


@pytest.mark.quick
@pytest.mark.instruction_set
@pytest.mark.parametrize("nonzero", ["none", "few", "half", "all"])
@pytest.mark.parametrize("n", [1, 3, 11, 16])
def test_the_right_hidden_units_are_skipped(make_model, make_images, threads, nonzero, n):
    model = make_model(config=PRESETS["tiny"], head_channels=100)
    with torch.no_grad():
        hidden, _, logits = model.prior.head
        hidden.weight.mul_(10)  # which of "few" and "half" are nonzero differs between images
        hidden.bias.copy_(
            {
                "none": torch.full([100], -1000.0),
                "few": torch.where(torch.arange(100) % 5 == 3, 0.0, -1000.0),
                "half": torch.zeros(100),
                "all": torch.full([100], 1000.0),
            }[nonzero]
        )
        logits.weight.mul_(0.01 if nonzero == "all" else 3)
    lr, noise = make_images(model.config, n, 2, 3), prsr.noise(1, n, 4, 6, 3)
    exact = {"fp32": model, "bf16": with_rounded_operands(model)}
    for precision, defined in exact.items():
        sampler = Sampler(model, engine="cpu", precision=precision)
        alone = torch.cat([sampler.sample(lr[i : i + 1], seed=1, first_index=i) for i in range(n)])
        for count in (1, 2):
            threads(count)
            assert torch.equal(sampler.sample(lr, seed=1), alone)
        assert cdf_violation(defined, lr, alone, noise, 1.0).max() <= 1e-4


@pytest.mark.instruction_set
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("threads_of_job", [1, 2])
@pytest.mark.parametrize(
    ("features", "gates"),
    # By colour 11 each; 9, 8 and 8, whose pre-activations fill two lines or one; 16, the most in
    # registers; one more.
    [(33, False), (33, True), (25, False), (48, False), (51, False)],
)
def test_caches_are_bit_identical_in_any_batch(
    make_model, make_images, threads, features, gates, threads_of_job, precision
):
    # Images could hide it: a draw seldom turns on the last bit of a logit.
    threads(threads_of_job)
    model = make_model(prior_channels=features, head_channels=35, conditional_gates=gates)
    engine, caches = CPUEngine(), []
    packed = engine.pack(model.prior, precision)
    lr = make_images(model.config, 19, 2, 3)
    conditioning = Conditioner(model.conditioning, model.config, lr.device)(lr)
    noise, temperature = prsr.noise(0, 19, 4, 6, 3), torch.arange(1, 20) / 10
    mask, known = prsr.noise(1, 19, 3, 4, 6) < 0.3, make_images(model.config, 19, 4, 6)
    for n in (1, 2, 3, 4, 8, 16, 19):
        image = known[:n].clone()
        job = Job(*(part[:n] for part in conditioning), noise[:n], temperature[:n], mask[:n], image)
        state = engine.start(packed, job)
        for y in range(4):
            engine.row(state, y)
        bundles, alone = divmod(n, BUNDLE * threads_of_job)
        assert [part.bundle for part in state.parts] == [BUNDLE] * (bundles > 0) + [1] * (alone > 0)
        first = state.parts[0].caches
        names = "values", "vertical", "above", "horizontal"
        # As integers, because a pair of bfloat16 is not a float.
        caches.append({name: first[name][0, ..., 0].view(torch.int32) for name in names})
        assert bool((image == known[:n])[mask[:n]].all())
    for other in caches[1:]:
        assert all(torch.equal(cache, other[name]) for name, cache in caches[0].items())


# The one that is chosen by default runs in these tests themselves.
@pytest.mark.parametrize(
    "name", [name for name in instruction_sets() if name != chosen_instruction_set()]
)
def test_other_instruction_sets_of_this_machine_pass_the_tests_of_engines(name):
    folder = Path(__file__).parent
    names = (
        "test_engines",
        "test_cpu",
        "test_cpu_bf16",
        "test_cpu_conditioning",
        "test_cpu_operator",
    )
    files = [folder / f"{name}.py" for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-m", "instruction_set"]
    environment = {**os.environ, "PRSR_INSTRUCTION_SET": name}
    subprocess.run([*command, *files], env=environment, check=True)


def test_an_instruction_set_that_is_not_here_is_refused(make_model, make_images, monkeypatch):
    monkeypatch.setenv("PRSR_INSTRUCTION_SET", "altivec")
    model = make_model()
    with pytest.raises(ValueError, match=r"PRSR_INSTRUCTION_SET must be one of .* got 'altivec'"):
        prsr.sample(make_images(model.config, 1, 1, 1), model=model, engine="cpu")


def test_an_instruction_set_that_is_not_here_leaves_the_other_engines(
    make_model, make_images, monkeypatch
):
    model = make_model()
    lr, sampler = make_images(model.config, 2, 1, 1), Sampler(model, engine="cpu")
    sampler.sample(lr, seed=1)
    monkeypatch.setenv("PRSR_INSTRUCTION_SET", "altivec")
    assert "got 'altivec'" in prsr.list_engines()["cpu"][0]
    for refused in (lambda: Sampler(model, engine="cpu"), lambda: sampler.sample(lr, seed=1)):
        with pytest.raises(ValueError, match="PRSR_INSTRUCTION_SET"):
            refused()
    for engine in ("torch", "reference"):
        image = prsr.sample(lr, model=model, engine=engine, seed=1)
        assert cdf_violation(model, lr, image, prsr.noise(1, 2, 2, 2, 3), 1.0).max() <= 1e-4


def test_a_change_of_the_instruction_set_takes_effect(make_model, make_images, monkeypatch):
    """For both networks, although their packed weights are kept."""
    model, used = make_model(), []
    extension = native.extension
    for name in ("draw_rows", "condition"):
        plain = getattr(extension, name)
        monkeypatch.setattr(
            extension, name, lambda *call, plain=plain: used.append(call[0]) or plain(*call)
        )
    sampler = Sampler(model, engine="cpu")
    for name in [*instruction_sets(), *instruction_sets()]:
        monkeypatch.setenv("PRSR_INSTRUCTION_SET", name)
        used.clear()
        sampler.sample(make_images(model.config, 2, 1, 1), seed=1)
        assert set(used) == {name}
        assert len(used) >= 2


@pytest.mark.quick
def test_two_threads_that_share_an_image_of_one_layer_meet_after_it(
    make_model, make_images, threads
):
    """With one layer, who is done with it first works ahead at what the other may still read."""
    model = make_model(prior_layers=1)
    lr = make_images(model.config, 1, 3, 24)
    sampler = Sampler(model, engine="cpu")
    threads(1)
    expected = sampler.sample(lr, seed=1)
    threads(2)
    for _ in range(20):
        assert torch.equal(sampler.sample(lr, seed=1), expected)


@pytest.mark.quick
def test_two_threads_may_sample_at_once(make_model, make_images, threads):
    threads(2)
    model = make_model()
    lr = make_images(model.config, 3, 3, 3)
    expected = [Sampler(model, engine="cpu").sample(lr, seed=seed) for seed in range(12)]
    images, meet = {}, threading.Barrier(3)

    def work(seeds):
        torch.set_num_threads(2)
        sampler = Sampler(model, engine="cpu")
        meet.wait()
        for seed in seeds:
            images[seed] = sampler.sample(lr, seed=seed)

    workers = [threading.Thread(target=work, args=(range(i, 12, 3),)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(images[seed], expected[seed]) for seed in range(12))


@pytest.mark.parametrize("n", [1, 17])
def test_rows_drawn_at_once_are_those_drawn_one_by_one(make_model, make_images, threads, n):
    threads(2)
    model = make_model()
    lr, sampler = make_images(model.config, n, 3, 2), Sampler(model, engine="cpu")
    *_, by_rows = sampler.rows(lr, seed=2)
    assert torch.equal(sampler.sample(lr, seed=2), by_rows)


@pytest.mark.parametrize("n", [1, 16])
def test_an_interruption_ends_rows_that_are_drawn_at_once(make_model, threads, n):
    threads(2)
    model, engine, height = make_model(), CPUEngine(), 4000
    logits = torch.full((n, model.config.levels, 3, height, 4), -100.0)
    logits[:, -1] = 100  # every sub-pixel drawn is this level, none that is not
    image = torch.zeros((n, 3, height, 4), dtype=torch.uint8)
    features = torch.zeros(n, 0, height, 4)
    job = Job(logits, features, prsr.noise(0, n, height, 4, 3), torch.ones(n), None, image)
    state = engine.start(engine.pack(model.prior, "fp32"), job)

    def interrupt():
        while not image[0, 0, 0, 0]:
            pass
        signal.raise_signal(signal.SIGINT)

    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        engine.rows(state, 0, height)
    other.join()
    assert bool(image[0, :, 0].all())
    assert not bool(image[:, :, -1].any())


def test_an_interruption_leaves_no_member_of_a_team_waiting(tmp_path):
    # Two teams, and a member who wakes when the first team has already been told to stop. That
    # takes eight threads and luck, so rows do nothing here but meet, and there are many calls.
    sources = Path(__file__).parents[2] / "csrc/cpu"
    names = "dispatch", "operands", "instruction_sets", "team", "thread_pool"
    program = tmp_path / "interrupted_teams"
    files = [Path(__file__).with_name("interrupted_teams.cpp")]
    files += [sources / f"{name}.cpp" for name in names]
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O2", "-pthread", f"-I{sources}"]
    unhindered = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}  # of sanitizers
    subprocess.run([*command, *map(str, files), "-o", str(program)], check=True, env=unhindered)
    subprocess.run([str(program), "8", "1000"], check=True, timeout=100, env=unhindered)


FORK = """
import os, signal, sys, torch
sys.path.insert(0, sys.argv[1])
from conftest import build_model
from prsr import Sampler
from prsr.testing import random_images
model = build_model()
lr = random_images(model.config, 16, 8, 8)
sampler = Sampler(model, engine=sys.argv[2])
torch.set_num_threads(2)
expected = sampler.sample(lr, seed=1, num_samples=2)
child = os.fork()
if child == 0:
    signal.alarm(100)
same = torch.equal(sampler.sample(lr, seed=1, num_samples=2), expected)
if child == 0:
    os._exit(0 if same else 1)
assert same and os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.quick
@pytest.mark.parametrize("engine", ["cpu", "torch"])
def test_a_child_of_fork_may_sample_on(engine):
    command = [sys.executable, "-c", FORK, str(Path(__file__).parents[1]), engine]
    subprocess.run(command, check=True, timeout=120)


@pytest.mark.quick
@pytest.mark.instruction_set
@pytest.mark.parametrize("u", [0.0, 2.0**-24, 0.5, 1 - 2.0**-24])
@pytest.mark.parametrize("temperature", [0.0, 1e-30, 0.05, 1.0, 50.0])
def test_draws_at_the_extremes(make_model, temperature, u):
    # All mass on the first five levels, on the last, on the odd ones, and the ends of the noise.
    model, engine = make_model(levels=37, gain=0.01), CPUEngine()
    conditioning = torch.zeros((3, 37, 3, 2, 4))
    conditioning[0, 5:] = -1e30
    conditioning[1, 36] = 1e30
    conditioning[2, ::2] = -1e4
    image = torch.zeros((3, 3, 2, 4), dtype=torch.uint8)
    features, noise = torch.zeros(3, 0, 2, 4), torch.full((3, 2, 4, 3), u)
    job = Job(conditioning, features, noise, torch.full((3,), temperature), None, image)
    state = engine.start(engine.pack(model.prior, "fp32"), job)
    for y in range(2):
        engine.row(state, y)
    assert int(image[0].max()) < 5
    assert image[1].unique().tolist() == [36]
    assert bool((image[2] % 2 == 1).all())
    if temperature == 50 and u != 0.5:
        assert image[2].unique().tolist() == [1 if u < 0.5 else 35]


def test_logits_that_overflow_give_no_level_beyond_the_last(make_model, make_images):
    model = make_model()  # 8 levels, in lanes of 16
    with torch.no_grad():
        model.prior.head[2].weight.normal_().mul_(3e38).clamp_(-3e38, 3e38)
    lr = make_images(model.config, 3, 2, 3)
    assert int(Sampler(model, engine="cpu").sample(lr, seed=1).max()) < 8
