"""Conditioning logits are bit-identical in any batch and with any number of threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from prsr.models.prsr import PRSR
from prsr.sampling.conditioning import Conditioner
from prsr.utils.torch_settings import exact_fp32
from prsr.utils.torch_threads import map_in_threads, run_in_new_thread


@contextmanager
def another_thread():
    """Keep another Python thread alive."""
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    try:
        yield
    finally:
        end.set()
        other.join()


@pytest.fixture(scope="module")
def faces():
    return PRSR.from_pretrained("faces")


@pytest.fixture
def logits(faces):
    def of(lr):
        with exact_fp32(lr.device):
            return Conditioner(faces.conditioning, faces.config, lr.device)(lr).logits

    return of


def test_logits_are_bit_identical_in_any_batch_and_thread_count(
    faces, logits, make_images, threads
):
    """Samples would not show a difference: a draw rarely depends on the last bit."""
    lr = make_images(faces.config, 9, 8, 8)
    threads(1)
    expected = logits(lr)
    for count in (1, 2, 3):
        threads(count)
        for images in (slice(0, 9), slice(0, 1), slice(3, 5), slice(4, 9)):
            assert torch.equal(logits(lr[images]), expected[images])
    with torch.no_grad():
        faces.eval()
        torch.testing.assert_close(faces.conditioning(lr), expected, atol=1e-3, rtol=0)


def test_logits_are_bit_identical_beside_and_in_another_python_thread(
    faces, logits, make_images, threads
):
    lr = make_images(
        faces.config, 2, 16, 16
    )  # large enough that three threads sum in a different order
    threads(1)
    expected = logits(lr)
    threads(3)
    with another_thread():
        assert torch.equal(logits(lr), expected)
    found = []
    run_in_new_thread(lambda: found.extend([logits(lr), logits(lr[:1])]))
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], expected[:1])


def test_a_gpu_conditions_all_images_at_once(make_model):
    """The device ``meta``, which computes shapes only, stands in for a GPU."""
    config, sizes = make_model().config, []

    class Shapes(nn.Module):
        def forward(self, lr):
            sizes.append(len(lr))
            n, _, height, width = lr.shape
            size = config.scale * height, config.scale * width
            return torch.zeros(n, config.levels + 1, config.channels, *size, device="meta")

    lr = torch.zeros((5, config.channels, 2, 3), dtype=torch.uint8, device="meta")
    with pytest.raises(ValueError, match=r"logits must be \[5, .*, got \[5"):
        Conditioner(Shapes(), config, lr.device)(lr)
    assert sizes == [5]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_map_in_threads_runs_each_item_once_and_keeps_other_thread_counts(threads, count):
    threads(3)
    seen, workers = [], threading.Barrier(3)

    def work(i):
        if count > 1 and i < 3:
            workers.wait(60)  # until each has set its thread count, which others may briefly see
        # In a thread that torch has not run in before.
        run_in_new_thread(lambda: seen.append(torch.get_num_threads()))
        return i, torch.get_num_threads()

    with another_thread():
        assert map_in_threads(work, count) == [(i, 1) for i in range(count)]
    assert seen == [3] * count
    assert torch.get_num_threads() == 3


def test_an_exception_in_a_worker_reaches_the_caller(threads):
    threads(2)

    def work(i):
        if i == 3:
            raise ValueError("the third")

    with pytest.raises(ValueError, match="the third"):
        map_in_threads(work, 5)
    assert torch.get_num_threads() == 2


AT_THE_END = """
import atexit, torch, prsr
torch.set_num_threads(2)
lr = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
expected = prsr.sample(lr, seed=1)
atexit.register(lambda: print(torch.equal(prsr.sample(lr, seed=1), expected)))
"""


def test_sampling_works_while_the_interpreter_exits():
    ended = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("True\n", "")
