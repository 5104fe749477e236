"""The prior's head by colour equals the dense one, gradients included."""

import pytest
import torch
from torch.nn import functional as F

from prsr.models.layers import colour_groups, logits_of
from prsr.models.masked_head import HeadByColour, aligned_ends


def test_the_ends_of_colours_are_aligned_and_cover_their_weights():
    for units, colours in ((100, 3), (1024, 3), (64, 1), (5, 2), (999, 4)):
        groups = colour_groups(units, colours).sort().values
        ends = aligned_ends(units, colours)
        assert ends[-1] == units
        for g, end in enumerate(ends):
            assert int((groups <= g).sum()) <= end <= int((groups <= g).sum()) + 31
            assert end % 32 == 0 or end == units


def dense_head(model, features):
    """The prior's head computed densely, from masked weights."""
    hidden, _, last = model.prior.head
    units = F.relu(F.conv2d(features, hidden.masked_weight(), hidden.bias))
    return logits_of(units, last.masked_weight(), last.bias, model.config)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_head_equals_the_dense_one_with_its_gradients(make_model, channels, wide_head):
    model = make_model(channels=channels, **wide_head).double()
    random = torch.Generator().manual_seed(0)
    features = torch.randn(2, 7, 3, 5, dtype=torch.double, generator=random).requires_grad_()
    parameters = [features, *model.prior.head.parameters()]
    results = []
    for function in (model.prior.head, lambda x: dense_head(model, x)):
        values = function(features)
        weights = torch.linspace(-1, 1, values.numel(), dtype=torch.double).view_as(values)
        gradients = torch.autograd.grad((weights * values).sum(), parameters)
        results.append([values, *gradients])
        assert values.permute(0, 3, 4, 2, 1).is_contiguous()
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_the_head_multiplies_less_than_a_dense_one(make_model, monkeypatch, wide_head):
    called = []
    apply = HeadByColour.apply
    monkeypatch.setattr(HeadByColour, "apply", lambda *a: called.append(a[-1]) or apply(*a))
    make_model(**wide_head).prior.head(torch.randn(1, 7, 2, 2))
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
