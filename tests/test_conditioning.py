"""Conditioning logits: to the last bit a picture's own, whatever is beside it and who computes."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from prsr.conditioning import conditioning_logits
from prsr.exact import exact_fp32
from prsr.model import PRSR
from prsr.threads import side_by_side


@pytest.fixture(scope="module")
def faces():
    return PRSR.from_pretrained("faces")


@pytest.fixture
def logits(faces):
    def of(lr):
        with exact_fp32(lr.device):
            return conditioning_logits(faces.conditioning, lr, faces.config)

    return of


def test_a_pictures_logits_hang_on_nothing_but_the_picture(faces, logits, make_pictures, threads):
    """Pictures could hide it: a draw seldom turns on the last bit."""
    lr = make_pictures(faces.config, 9, 8, 8)
    threads(1)
    expected = logits(lr)
    for count in (1, 2, 3):
        threads(count)
        for pictures in (slice(0, 9), slice(0, 1), slice(3, 5), slice(4, 9)):
            assert torch.equal(logits(lr[pictures]), expected[pictures])
    with torch.no_grad():
        faces.eval()
        torch.testing.assert_close(faces.conditioning(lr), expected, atol=1e-3, rtol=0)


def test_logits_stay_the_same_where_another_thread_of_python_works(logits, faces, make_pictures):
    lr = make_pictures(faces.config, 3, 8, 8)
    expected, end = logits(lr), threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    try:
        assert torch.equal(logits(lr), expected)
    finally:
        end.set()
        other.join()


def test_a_gpu_gets_all_pictures_at_once(make_model):
    """Stood in for by the device ``meta``, which gives shapes alone."""
    config, sizes = make_model().config, []

    class Shapes(nn.Module):
        def forward(self, lr):
            sizes.append(len(lr))
            n, _, height, width = lr.shape
            size = config.scale * height, config.scale * width
            return torch.zeros(n, config.levels + 1, config.channels, *size, device="meta")

    lr = torch.zeros((5, config.channels, 2, 3), dtype=torch.uint8, device="meta")
    with pytest.raises(ValueError, match=r"logits must be \[5, .*, they are \[5"):
        conditioning_logits(Shapes(), lr, config)
    assert sizes == [5]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_work_is_done_once_each_with_one_thread_and_torchs_threads_are_put_back(threads, count):
    threads(3)
    done = []
    side_by_side(lambda i: done.append((i, torch.get_num_threads())), count)
    assert sorted(done) == [(i, 1) for i in range(count)]
    assert torch.get_num_threads() == 3


def test_what_work_raises_reaches_the_caller_and_torchs_threads_are_put_back(threads):
    threads(2)

    def work(i):
        if i == 3:
            raise ValueError("the third")

    with pytest.raises(ValueError, match="the third"):
        side_by_side(work, 5)
    assert torch.get_num_threads() == 2


def test_beside_another_thread_work_is_done_in_the_callers(threads):
    threads(2)
    end, done = threading.Event(), []
    other = threading.Thread(target=end.wait)
    other.start()
    try:
        side_by_side(lambda i: done.append((i, threading.current_thread())), 3)
    finally:
        end.set()
        other.join()
    assert done == [(i, threading.current_thread()) for i in range(3)]
