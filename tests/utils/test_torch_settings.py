"""Products are in plain fp32, whichever of torch's older or newer switches the caller set."""

from __future__ import annotations

from itertools import permutations
from operator import attrgetter

import pytest
import torch

import prsr
from prsr.testing import cdf_violation
from prsr.utils.torch_settings import exact_fp32

PARENTS = ["backends", "backends.cudnn", "backends.mkldnn"]
CHILDREN = [
    "backends.cudnn.conv",
    "backends.cuda.matmul",
    "backends.mkldnn.matmul",
    "backends.mkldnn.conv",
]
SETTINGS = [
    *((name, value) for name in PARENTS + CHILDREN for value in ("tf32", "bf16", "ieee")),
    ("products", "high"),
    ("products", "medium"),
    ("convolutions", False),
]
newer = pytest.mark.skipif(
    not hasattr(torch.backends, "fp32_precision"), reason="this torch has only the older switches"
)


def write(name, value):
    """Set a newer switch, by the name of its owner, or an older one."""
    if name == "products":
        torch.set_float32_matmul_precision(value)
    elif name == "convolutions":
        torch.backends.cudnn.allow_tf32 = value
    elif name == "backends.mkldnn":  # its attribute would set "backends"
        torch.backends.mkldnn.set_flags(_fp32_precision=value)
    elif not (value == "bf16" and "cud" in name):  # GPU switches do not accept bf16
        attrgetter(name)(torch).fp32_precision = value


def read(name):
    return attrgetter(name)(torch).fp32_precision


def older():
    """The values of the older switches; None where torch raises an error."""
    seen = []
    for look in (torch.get_float32_matmul_precision, lambda: torch.backends.cudnn.allow_tf32):
        try:
            seen.append(look())
        except RuntimeError:
            seen.append(None)
    return seen


def everything():
    """The values of all switches, and those of the children when their parents are unset."""
    seen = [read(name) for name in PARENTS + CHILDREN]
    own = []
    for name in PARENTS:
        own.append(read(name))
        write(name, "none")
    own += [read(name) for name in CHILDREN]
    for name, value in zip(PARENTS, own, strict=False):
        write(name, value)
    return older(), torch.backends.cudnn.deterministic, seen, own


@pytest.fixture
def fresh():
    def undo():
        torch.set_float32_matmul_precision("highest")
        for name in PARENTS + CHILDREN:
            write(name, "none")
        torch.backends.cudnn.allow_tf32 = True

    undo()
    yield undo
    undo()


@newer
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_exact_fp32_restores_any_pair_of_switches(fresh, device):
    """A GPU's switches can be checked without one."""
    ours = CHILDREN if device == "cuda" else CHILDREN[1:]
    for settings in [(), *((one,) for one in SETTINGS), *permutations(SETTINGS, 2)]:
        fresh()
        for setting in settings:
            write(*setting)
        before = everything()
        with exact_fp32(torch.device(device)):
            assert not {read(name) for name in ours} & {"tf32", "bf16"}, settings
            products, convolutions = older()
            if before[0][0]:
                assert products == "highest", settings
            if device == "cuda" and before[0][1] is not None:
                assert convolutions is False, settings
            assert torch.backends.cudnn.deterministic == (device == "cuda")
        assert everything() == before, settings


def test_exact_fp32_restores_the_older_switches():
    cudnn = torch.backends.cudnn
    torch.set_float32_matmul_precision("medium")
    try:
        with exact_fp32(torch.device("cuda")):
            assert torch.get_float32_matmul_precision() == "highest"
            assert (cudnn.allow_tf32, cudnn.deterministic) == (False, True)
        assert torch.get_float32_matmul_precision() == "medium"
        assert (cudnn.allow_tf32, cudnn.deterministic) == (True, False)
    finally:
        torch.set_float32_matmul_precision("highest")


@newer
def test_samples_do_not_depend_on_the_callers_switches(make_model, make_images, fresh):
    model = make_model()
    lr, sampler = make_images(model.config, 3, 2, 3), prsr.Sampler(model)
    expected = sampler.sample(lr, seed=1)
    noise = prsr.noise(1, len(lr), *expected.shape[2:], 3)
    for name in PARENTS + CHILDREN:
        fresh()
        write(name, "tf32")
        assert torch.equal(sampler.sample(lr, seed=1), expected)
        assert cdf_violation(model, lr, expected, noise, 1.0).max() <= 1e-4


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_deterministic_mode_is_suspended_on_a_gpu_and_restored(mode):
    torch.set_deterministic_debug_mode(mode)
    try:
        with exact_fp32(torch.device("cuda")):
            assert torch.get_deterministic_debug_mode() == 0
        assert torch.get_deterministic_debug_mode() == mode
        with exact_fp32(torch.device("cpu")):
            assert torch.get_deterministic_debug_mode() == mode
    finally:
        torch.set_deterministic_debug_mode(0)
