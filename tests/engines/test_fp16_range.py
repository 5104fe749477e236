"""How large numbers become, as proven from the weights."""

import pytest
import torch

from prsr.engines import fp16_range as ranges
from prsr.engines.grouped_weights import pack_prior


@pytest.mark.parametrize("gain", [0.5, 4.0])
def test_no_operand_exceeds_the_bound(make_model, make_images, gain):
    """And the bound is not far above what weights of one sign reach."""
    model = make_model(gain=gain, prior_channels=8)
    with torch.no_grad():
        for parameter in model.prior.parameters():
            parameter.abs_()
    bound = ranges.largest_operand(pack_prior(model.prior))
    seen = []
    for block in model.prior.blocks:
        for layer in (block.vertical, block.link, block.horizontal, block.mix):
            layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].abs().max()))
    for layer in (model.prior.head[0], model.prior.head[2]):
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].abs().max()))
    images = torch.full((1, 3, 12, 12), model.config.levels - 1, dtype=torch.uint8)
    with torch.no_grad():
        model.prior(images, torch.empty(1, 0, 12, 12))
    # But for the rounding of sums.
    assert max(seen) <= 1.0001 * bound
    assert bound <= 3 * max(seen)


def test_fp16_is_refused_where_it_might_overflow(make_model):
    model = make_model()
    ranges.check_fp16(pack_prior(model.prior))
    with torch.no_grad():
        model.prior.head[0].bias[0] = 60000
    ranges.check_fp16(pack_prior(model.prior))
    with torch.no_grad():
        model.prior.head[0].bias[0] = 65600
    with pytest.raises(ValueError, match="precision must be fp32 or bf16 for this model"):
        ranges.check_fp16(pack_prior(model.prior))
