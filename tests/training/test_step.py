"""A training step equals the plain formulas, gradients included."""

import pytest
import torch
from torch import nn

from prsr import PRSR, prsr_loss
from prsr.testing import plain_loss


@pytest.mark.parametrize("conditional", [False, True])
def test_a_mixed_precision_step_is_as_accurate_as_the_plain_formula(
    make_model, make_images, conditional, wide_head
):
    model = make_model(conditional_gates=conditional, **wide_head).train()
    for gates in model.modules():
        if isinstance(gates, nn.Conv2d) and gates.bias is None:
            nn.init.normal_(gates.weight, std=0.3)
    lr, hr = make_images(model.config, 6, 4, 4), make_images(model.config, 6, 8, 8)
    parameters = list(model.parameters())
    exact = torch.autograd.grad(plain_loss(model, lr, hr), parameters)
    with torch.autocast("cpu", torch.bfloat16):
        usual = torch.autograd.grad(plain_loss(model, lr, hr), parameters)
        model.to(memory_format=torch.channels_last)
        found = torch.autograd.grad(prsr_loss(model(lr, hr), hr), parameters)
    errors = [
        sum(float((one - truth).square().sum()) for one, truth in zip(each, exact, strict=True))
        for each in (found, usual)
    ]
    assert 0 < errors[0] < 1.5 * errors[1]


def test_a_compiled_model_has_the_same_loss_and_gradients(make_model, make_images, wide_head):
    model: PRSR = make_model(conditional_gates=True, **wide_head)
    lr, hr = make_images(model.config, 2, 3, 3), make_images(model.config, 2, 6, 6)
    step = lambda lr, hr: prsr_loss(model(lr, hr), hr)  # noqa: E731
    parameters = list(model.parameters())
    expected = [step(lr, hr), *torch.autograd.grad(step(lr, hr), parameters)]
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    found = [compiled(lr, hr), *torch.autograd.grad(compiled(lr, hr), parameters)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
