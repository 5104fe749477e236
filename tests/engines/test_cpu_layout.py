"""The orders in which the engine ``cpu`` keeps a prior's weights."""

from __future__ import annotations

import pytest
import torch

from prsr.engines.cpu_layout import (
    aligned_zeros,
    as_they_are,
    blocks,
    by_pixels,
    lay_out,
    paired,
    strips,
    tiles,
    unpaired,
)
from prsr.engines.grouped_weights import pack_prior


def test_blocks_hold_sixty_four_outputs_side_by_side():
    matrix = torch.arange(3 * 84.0).view(3, 84)
    packed = blocks(matrix)
    assert torch.equal(packed[: 3 * 64].view(3, 64), matrix[:, :64])
    rest = packed[3 * 64 :].view(3, 32)
    assert torch.equal(rest[:, :20], matrix[:, 64:])
    assert not rest[:, 20:].any()


def test_strips_have_as_many_pairs_as_can_be():
    matrix = torch.arange(3 * 49.0).view(3, 49)
    packed = strips(matrix, 24)
    assert torch.equal(packed[: 3 * 18].view(3, 18), matrix[:, :18])
    assert torch.equal(packed[3 * 18 : 3 * 34].view(3, 16), matrix[:, 18:34])
    assert torch.equal(packed[3 * 34 :].view(3, 15), matrix[:, 34:])


@pytest.mark.parametrize("width", [6, 12, 24])
@pytest.mark.parametrize("outputs", [1, 6, 11, 22, 64, 256])
def test_no_strip_is_wider_than_asked_for(width, outputs):
    matrix = torch.arange(2.0 * outputs).view(2, outputs)
    packed, column = strips(matrix, width), 0
    while column < outputs:
        after = packed[2 * column :]
        # A strip's second row begins where the matrix's does.
        own = int((after == matrix[1, column]).nonzero()[0])
        assert own <= width
        assert own % 2 == 0 or column + own == outputs
        assert torch.equal(after[: 2 * own].view(2, own), matrix[:, column : column + own])
        column += own
    assert len(packed) == 2 * outputs


def test_tiles_hold_the_chunks_of_each_segment():
    matrix = torch.arange(25 * 20.0).view(25, 20)
    packed, begin = tiles(matrix, [0, 21, 4]), 0
    for columns in (slice(0, 16), slice(16, 20)):
        for chunk in (slice(0, 16), slice(16, 21), slice(21, 25)):
            expected = matrix[chunk, columns].T
            end = begin + expected.numel()
            assert torch.equal(packed[begin:end].view(expected.shape), expected)
            begin = end
    assert begin == len(packed)


def test_pairs_are_two_inputs_in_the_place_of_a_float():
    matrix = torch.tensor([[1.0, 2.0], [-3.0, 0.5], [1 + 2.0**-9, 7.0], [1 + 3 * 2.0**-8, 8.0]])
    packed = paired(matrix, [3, 0, 1])
    assert packed.dtype == torch.float32
    assert packed.shape == (3, 2)
    # For each output, the lower half of the word first. Ties are rounded to even.
    expected = [[[1, -3], [2, 0.5]], [[1, 0], [7, 0]], [[1 + 2.0**-6, 0], [8, 0]]]
    assert packed.view(torch.bfloat16).view(3, 2, 2).tolist() == expected


def test_unpaired_features_are_those_that_were_paired():
    features = torch.arange(2 * 8.0).view(8, 2)  # of a bundle of two images
    for ranges in ([8], [3, 3, 2], [1] * 8):
        assert torch.equal(unpaired(paired(features, ranges), ranges), features)


def test_zeros_begin_on_a_line():
    for size in (1, 5, 17, 1000):
        zeros = aligned_zeros(size, 3)
        assert zeros.data_ptr() % 64 == 0
        assert zeros.shape == (size, 3)
        assert not zeros.any()


def test_conditioning_features_come_before_the_other_inputs(make_model):
    model = make_model(conditioning_channels=5, conditional_gates=True)
    packed = pack_prior(model.prior)
    weights = lay_out(packed, torch.flatten, torch.flatten, as_they_are)
    # Behind the first layer come matrix and bias of each block's vertical layer and link.
    vertical, _, link = (weights.memory[offset:] for offset in weights.offsets[2:5])
    block, outputs = packed.blocks[0], 2 * model.config.prior_channels
    wanted = torch.cat([block.conditional, by_pixels(block.vertical.weight)])
    assert torch.equal(vertical[: wanted.numel()].view(wanted.shape), wanted)
    wanted = torch.cat([block.link.weight[outputs:], block.link.weight[:outputs]])
    assert torch.equal(link[: wanted.numel()].view(wanted.shape), wanted)
