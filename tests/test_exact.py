"""Products in plain fp32, whatever switch the caller has set, and by which of torch's two ways."""

from __future__ import annotations

from operator import attrgetter

import pytest
import torch

import prsr
from prsr.exact import exact_fp32
from prsr.testing import cdf_violation

NEWER_SWITCHES = [
    "fp32_precision",
    "cudnn.fp32_precision",
    "cudnn.conv.fp32_precision",
    "cuda.matmul.fp32_precision",
    "mkldnn.matmul.fp32_precision",
    "mkldnn.conv.fp32_precision",
]

newer = pytest.mark.skipif(
    not hasattr(torch.backends, "fp32_precision"), reason="this torch has the older switches alone"
)


def test_convolutions_on_a_gpu_are_fp32_and_deterministic_while_it_works():
    cudnn = torch.backends.cudnn
    assert (cudnn.allow_tf32, cudnn.deterministic) == (True, False)
    with exact_fp32(torch.device("cuda")):
        assert (cudnn.allow_tf32, cudnn.deterministic) == (False, True)
    assert (cudnn.allow_tf32, cudnn.deterministic) == (True, False)


@newer
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("switch", [*NEWER_SWITCHES, "legacy"])
def test_newer_switches_of_precision_are_held_and_put_back(switch, device):
    """Of a GPU's there is nothing but the switches to see here."""

    def seen():
        return {name: attrgetter(name)(torch.backends) for name in NEWER_SWITCHES}

    fresh = seen()
    *parents, name = switch.split(".")
    owner = attrgetter(".".join(["backends", *parents]))(torch)
    try:
        if switch == "legacy":
            torch.set_float32_matmul_precision("medium")
        else:
            setattr(owner, name, "tf32")
        before = seen()
        assert "tf32" in before.values()
        with exact_fp32(torch.device(device)):
            inside = seen()
            assert torch.get_float32_matmul_precision() == "highest"
        of_gpu = [name for name in inside if name.startswith("cudnn")]
        assert not {"tf32", "bf16"} & {
            value for name, value in inside.items() if device == "cuda" or name not in of_gpu
        }
        assert seen() == before
        torch.backends.fp32_precision = "none"
        if switch == "fp32_precision":  # what others inherited they have not got for their own
            assert seen() == fresh
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.fp32_precision = "none"
        torch.backends.cudnn.fp32_precision = "none"
        torch.backends.cudnn.allow_tf32 = True
        for name in ("cuda.matmul", "mkldnn.matmul", "mkldnn.conv"):
            attrgetter(name)(torch.backends).fp32_precision = "none"
        assert seen() == fresh


@newer
def test_pictures_are_drawn_whatever_switch_the_caller_set(make_model, make_pictures):
    model = make_model()
    lr, sampler = make_pictures(model.config, 3, 2, 3), prsr.Sampler(model)
    expected = sampler.sample(lr, seed=1)
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        picture = sampler.sample(lr, seed=1)
        noise = prsr.noise(1, len(lr), *picture.shape[2:], 3)
        assert cdf_violation(model, lr, picture, noise, 1.0).max() <= 1e-4
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"
    assert torch.equal(picture, expected)
