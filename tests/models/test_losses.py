"""The loss: the sum of two mean cross-entropies."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from prsr import PRSROutput, prsr_loss
from prsr.utils.argument_checks import check_targets


def test_prsr_loss_is_the_sum_of_both_mean_cross_entropies(make_model, make_images):
    model = make_model().double()
    lr, hr = make_images(model.config, 3, 2, 5), make_images(model.config, 3, 4, 10)
    output = model(lr, hr)
    losses = [F.cross_entropy(each, hr.long()) for each in (output[1] + output[2], output[1])]
    torch.testing.assert_close(prsr_loss(output, hr), sum(losses), rtol=1e-12, atol=0)
    # Logits in another memory layout than the networks', such as a user's own.
    contiguous = PRSROutput(*(each.contiguous() for each in output))
    torch.testing.assert_close(prsr_loss(contiguous, hr), sum(losses), rtol=1e-12, atol=0)


def test_levels_that_the_logits_lack_are_refused(make_model, make_images):
    model = make_model()
    lr, hr = make_images(model.config, 1, 2, 2), make_images(model.config, 1, 4, 4)
    output = model(lr, hr)
    hr[0, 0, 0, 0] = model.config.levels
    with pytest.raises(ValueError, match=r"^hr must hold values below 8"):
        prsr_loss(output, hr)


def test_targets_on_a_gpu_are_checked_without_reading_a_value():
    """Reading would wait for the GPU. A fake tensor has a device, but no values."""
    with FakeTensorMode():
        logits = torch.empty(2, 8, 3, 4, 6, device="cuda")
        hr, fewer = (torch.empty(n, 3, 4, 6, dtype=torch.uint8, device="cuda") for n in (2, 1))
        check_targets(hr, logits)
        with pytest.raises(ValueError, match="like the logits"):
            check_targets(fewer, logits)


def test_a_training_step_of_few_levels_reads_no_value(make_model):
    """On the device meta, which has none, forward and backward."""
    model = make_model().to("meta")
    assert model.config.levels < 256
    lr, hr = (
        torch.zeros(2, 3, *size, dtype=torch.uint8, device="meta") for size in ((2, 3), (4, 6))
    )
    prsr_loss(model(lr, hr), hr).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
