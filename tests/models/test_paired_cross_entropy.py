"""The paired cross-entropy equals the plain formula, gradients included."""

import pytest
import torch

import prsr.models.paired_cross_entropy
from prsr.models.paired_cross_entropy import formula, paired_cross_entropy


def logits(rows, levels, dtype=torch.float64, seed=0):
    """Logits of two networks, of a few nats and in one row of hundreds, and targets."""
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
def test_the_paired_cross_entropy_equals_the_formula_with_its_gradients(
    monkeypatch, at_a_time, levels
):
    monkeypatch.setattr(
        prsr.models.paired_cross_entropy, "rows_at_a_time", lambda logits: at_a_time
    )
    pair, target = logits(50, levels)
    found = with_gradients(paired_cross_entropy, pair, target, scale=3.0)
    expected = with_gradients(formula, pair, target, scale=3.0)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


def test_the_bf16_paired_cross_entropy_is_as_accurate_as_the_formula():
    pair, target = logits(3000, 256, torch.bfloat16)
    exact = with_gradients(formula, [each.double() for each in pair], target)
    found = with_gradients(paired_cross_entropy, pair, target)
    plain = with_gradients(formula, pair, target)
    assert [each.dtype for each in found] == [torch.float32, torch.bfloat16, torch.bfloat16]
    assert abs(found[0] - exact[0]) < 1e-6 * exact[0]
    for one, usual, truth in zip(found[1:], plain[1:], exact[1:], strict=True):
        assert (one - truth).norm() <= 1.001 * (usual - truth).norm()
        assert (usual - truth).norm() > 0


def test_each_networks_gradients_have_the_dtype_of_its_logits():
    (a, b), target = logits(20, 8)
    pair = [a, b.detach().bfloat16().requires_grad_()]
    found, expected = (with_gradients(f, pair, target) for f in (paired_cross_entropy, formula))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        rtol = 2**-8 if one.dtype == torch.bfloat16 else 1e-12  # rounded in another order
        torch.testing.assert_close(one, other, rtol=rtol, atol=1e-15)


def test_one_network_may_require_no_gradient():
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


def test_second_derivatives_are_refused():
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
def test_a_non_finite_logit_makes_the_loss_nan(value):
    (a, b), target = logits(5, 4)
    with torch.no_grad():
        b[3, 2] = value
    assert paired_cross_entropy(a, b, target).isnan()
