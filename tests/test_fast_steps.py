"""What makes training steps fast computes what the plain formulas do, gradients included."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import prsr.models.paired_cross_entropy
from benchmarks.training import plain_loss
from prsr import PRSR, PRSROutput, prsr_loss
from prsr.models.head_by_colour import HeadByColour, aligned_ends
from prsr.models.layers import colour_groups, gate, logits_of
from prsr.models.paired_cross_entropy import formula, paired_cross_entropy

WIDE = {"head_channels": 100, "levels": 16}
"""Changes to the preset tiny: a head whose colours are wide enough for products of their own."""


def logits(rows, levels, dtype=torch.float64, seed=0):
    """Two networks' logits and targets; the logits differ by nats, some of them by hundreds."""
    random = torch.Generator().manual_seed(seed)
    pair = [3 * torch.randn(rows, levels, dtype=torch.float64, generator=random) for _ in "ab"]
    pair[0][0] *= 100
    target = torch.randint(levels, (rows,), generator=random)
    return [each.to(dtype).requires_grad_() for each in pair], target


def with_gradients(function, pair, target, scale=1.0):
    value = function(*pair, target)
    return [value.detach(), *torch.autograd.grad(scale * value, pair)]


@pytest.mark.parametrize("at_a_time", [1, 7, 50, 1000])
@pytest.mark.parametrize("levels", [2, 256])
def test_the_paired_cross_entropy_is_the_formula_with_its_gradients(monkeypatch, at_a_time, levels):
    monkeypatch.setattr(
        prsr.models.paired_cross_entropy, "rows_at_a_time", lambda logits: at_a_time
    )
    pair, target = logits(50, levels)
    found = with_gradients(paired_cross_entropy, pair, target, scale=3.0)
    expected = with_gradients(formula, pair, target, scale=3.0)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


def test_the_paired_cross_entropy_of_half_precision_errs_no_more_than_the_formula():
    pair, target = logits(3000, 256, torch.bfloat16)
    exact = with_gradients(formula, [each.double() for each in pair], target)
    found = with_gradients(paired_cross_entropy, pair, target)
    plain = with_gradients(formula, pair, target)
    assert [each.dtype for each in found] == [torch.float32, torch.bfloat16, torch.bfloat16]
    assert abs(found[0] - exact[0]) < 1e-6 * exact[0]
    for one, usual, truth in zip(found[1:], plain[1:], exact[1:], strict=True):
        assert (one - truth).norm() <= 1.001 * (usual - truth).norm()
        assert (usual - truth).norm() > 0


def test_logits_of_two_precisions_get_gradients_of_their_own():
    (a, b), target = logits(20, 8)
    pair = [a, b.detach().bfloat16().requires_grad_()]
    found, expected = (with_gradients(f, pair, target) for f in (paired_cross_entropy, formula))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        rtol = 2**-8 if one.dtype == torch.bfloat16 else 1e-12  # rounded in another order
        torch.testing.assert_close(one, other, rtol=rtol, atol=1e-15)


def test_one_network_may_be_without_gradient():
    (a, b), target = logits(20, 8)
    for wanted, pair in ((b, (a.detach(), b)), (a, (a, b.detach()))):
        found, expected = (
            torch.autograd.grad(f(*pair, target), wanted)[0]
            for f in (paired_cross_entropy, formula)
        )
        torch.testing.assert_close(found, expected)
    with torch.no_grad():
        assert not paired_cross_entropy(a, b, target).requires_grad


def test_gradients_in_fp16_are_scaled_before_they_are_rounded():
    pair, target = logits(3000, 256, torch.float16)
    for one in torch.autograd.grad(2.0**16 * paired_cross_entropy(*pair, target), pair):
        assert one.count_nonzero() > 0.9 * one.numel()


def test_the_gradient_of_the_gradient_is_refused():
    pair, target = logits(5, 4)
    with pytest.raises(RuntimeError, match="gradient of prsr_loss cannot be differentiated"):
        torch.autograd.grad(paired_cross_entropy(*pair, target), pair, create_graph=True)


def test_a_loss_can_be_differentiated_more_than_once():
    pair, target = logits(20, 8)
    value = paired_cross_entropy(*pair, target)
    first = [each.clone() for each in torch.autograd.grad(value, pair, retain_graph=True)]
    for one, other in zip(first, torch.autograd.grad(value, pair), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_shows_in_the_loss(value):
    (a, b), target = logits(5, 4)
    with torch.no_grad():
        b[3, 2] = value
    assert paired_cross_entropy(a, b, target).isnan()


def test_prsr_loss_is_the_mean_of_both_networks_over_all_sub_pixels(make_model, make_images):
    model = make_model().double()
    lr, hr = make_images(model.config, 3, 2, 5), make_images(model.config, 3, 4, 10)
    output = model(lr, hr)
    losses = [F.cross_entropy(each, hr.long()) for each in (output[1] + output[2], output[1])]
    torch.testing.assert_close(prsr_loss(output, hr), sum(losses), rtol=1e-12, atol=0)
    # Logits that are not as the networks lay them out, such as a user's own.
    contiguous = PRSROutput(*(each.contiguous() for each in output))
    torch.testing.assert_close(prsr_loss(contiguous, hr), sum(losses), rtol=1e-12, atol=0)


def test_the_ends_of_colours_are_aligned_and_cover_their_weights():
    for units, colours in ((100, 3), (1024, 3), (64, 1), (5, 2), (999, 4)):
        groups = colour_groups(units, colours).sort().values
        ends = aligned_ends(units, colours)
        assert ends[-1] == units
        for g, end in enumerate(ends):
            assert int((groups <= g).sum()) <= end <= int((groups <= g).sum()) + 31
            assert end % 32 == 0 or end == units


def head(model, features):
    """The prior's head by its own weights, in their own order and densely."""
    hidden, _, last = model.prior.head
    units = F.relu(F.conv2d(features, hidden.masked_weight(), hidden.bias))
    return logits_of(units, last.masked_weight(), last.bias, model.config)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_head_is_the_dense_one_with_its_gradients(make_model, channels):
    model = make_model(channels=channels, **WIDE).double()
    random = torch.Generator().manual_seed(0)
    features = torch.randn(2, 7, 3, 5, dtype=torch.double, generator=random).requires_grad_()
    parameters = [features, *model.prior.head.parameters()]
    results = []
    for function in (model.prior.head, lambda x: head(model, x)):
        values = function(features)
        weights = torch.linspace(-1, 1, values.numel(), dtype=torch.double).view_as(values)
        gradients = torch.autograd.grad((weights * values).sum(), parameters)
        results.append([values, *gradients])
        assert values.permute(0, 3, 4, 2, 1).is_contiguous()
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_the_head_multiplies_less_than_a_dense_one(make_model, monkeypatch):
    called = []
    apply = HeadByColour.apply
    monkeypatch.setattr(HeadByColour, "apply", lambda *a: called.append(a[-1]) or apply(*a))
    make_model(**WIDE).prior.head(torch.randn(1, 7, 2, 2))
    assert called == [(64, 96, 100)]


def test_a_product_by_colour_has_second_derivatives():
    random = torch.Generator().manual_seed(0)
    groups = colour_groups(70, 2).sort().values
    weight = torch.randn(2, 3, 70, dtype=torch.double, generator=random)
    weight = (weight * (groups <= torch.arange(2)[:, None])[:, None]).requires_grad_()
    units = torch.randn(4, 70, dtype=torch.double, generator=random).requires_grad_()
    bias = torch.randn(2, 3, dtype=torch.double, generator=random).requires_grad_()
    ends = aligned_ends(70, 2)
    product = lambda u, b: HeadByColour.apply(u, weight, b, ends)  # noqa: E731
    assert torch.autograd.gradcheck(product, (units, bias))
    assert torch.autograd.gradgradcheck(product, (units, bias))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_gate_is_the_formula_in_any_memory_format(layout):
    a = torch.randn(2, 10, 3, 4, dtype=torch.double).contiguous(memory_format=layout)
    a.requires_grad_()
    expected = a[:, :5].tanh() * a[:, 5:].sigmoid()
    torch.testing.assert_close(gate(a), expected)
    found, truth = (torch.autograd.grad(x.square().sum(), a)[0] for x in (gate(a), expected))
    torch.testing.assert_close(found, truth)
    assert gate(a).is_contiguous(memory_format=layout)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_step_in_mixed_precision_errs_no_more_than_a_plain_one(
    make_model, make_images, conditional
):
    model = make_model(conditional_gates=conditional, **WIDE).train()
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


def test_a_compiled_model_has_the_same_loss_and_gradients(make_model, make_images):
    model: PRSR = make_model(conditional_gates=True, **WIDE)
    lr, hr = make_images(model.config, 2, 3, 3), make_images(model.config, 2, 6, 6)
    step = lambda lr, hr: prsr_loss(model(lr, hr), hr)  # noqa: E731
    parameters = list(model.parameters())
    expected = [step(lr, hr), *torch.autograd.grad(step(lr, hr), parameters)]
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    found = [compiled(lr, hr), *torch.autograd.grad(compiled(lr, hr), parameters)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
