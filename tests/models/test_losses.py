"""The loss: the sum of two mean cross-entropies."""

import pytest
import torch
from torch.nn import functional as F

from prsr import PRSROutput, prsr_loss


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
