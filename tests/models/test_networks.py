"""The networks: dependencies between sub-pixels, layers, loss and training step."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import prsr.models.networks
from prsr import PRSR, PRSRConfig, bits_per_dim, prsr_loss
from prsr.models.layers import ConditionalGates, Logits, RowConvolution, logits_of
from prsr.models.networks import ResNetBlock, to_network_input

# Few channels and layers, so that an image of 5×6 is larger than the receptive field.
RECEPTIVE_FIELDS = [
    {"channels": 3, "prior_channels": 7, "head_channels": 11, "first_kernel": 3, "prior_layers": 1},
    {"channels": 3, "prior_channels": 3, "head_channels": 3, "first_kernel": 5, "prior_kernel": 1},
    {"channels": 2, "prior_channels": 5, "head_channels": 4, "first_kernel": 3, "prior_layers": 2},
    {"channels": 1, "prior_channels": 1, "head_channels": 3, "first_kernel": 3, "prior_layers": 1},
    {"channels": 1, "prior_channels": 4, "head_channels": 5, "first_kernel": 7, "prior_kernel": 5},
]


def raster(height, width, channels):
    """Row, column and colour of every sub-pixel, in the order in which they are drawn."""
    return [(y, x, c) for y in range(height) for x in range(width) for c in range(channels)]


def inside_field(config, at, other):
    """Whether the sub-pixel ``other`` is before ``at`` and in its receptive field.

    Each block extends the field by its reach: to both sides and upwards in the rows above, to the
    left in the row of ``at``.
    """
    (y, x, colour), (row, column, other_colour) = at, other
    reach = config.first_reach + config.prior_layers * config.reach
    if row == y:
        return x - reach <= column < x or (column == x and other_colour < colour)
    return y - reach <= row < y and abs(column - x) <= reach


@pytest.mark.parametrize("changes", RECEPTIVE_FIELDS)
def test_logits_depend_on_all_earlier_sub_pixels_in_the_field_and_no_others(
    make_model, monkeypatch, changes
):
    model = make_model(levels=3, gain=1, **changes).double()
    prior, channels = model.prior, model.config.channels
    # A large bias keeps every unit of the head active, so that no gradient is zero by chance.
    nn.init.constant_(prior.head[0].bias, 20)
    monkeypatch.setattr(prsr.models.networks, "to_network_input", lambda images, levels: images)
    places = raster(5, 6, channels)
    random = torch.Generator().manual_seed(0)
    image = torch.rand((channels, 5, 6), dtype=torch.double, generator=random) - 0.5

    # From image i, take the logits at place i only.
    images = image.repeat(len(places), 1, 1, 1).requires_grad_()
    logits = prior(images).permute(0, 3, 4, 2, 1).flatten(1, 3)
    own = torch.stack([logits[i, i] for i in range(len(places))])
    (own @ torch.tensor([1.0, 2.0, -4.0]).double()).sum().backward()
    influence = images.grad.permute(0, 2, 3, 1).flatten(1) != 0
    expected = torch.tensor([[inside_field(model.config, i, j) for j in places] for i in places])
    assert torch.equal(influence, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_changing_a_sub_pixel_changes_only_later_logits(make_model, make_images, channels):
    model = make_model(channels=channels, first_kernel=7, prior_kernel=5)
    config, places = model.config, raster(4, 5, channels)
    images = make_images(config, 1, 4, 5).repeat(len(places) + 1, 1, 1, 1)
    for i, (y, x, c) in enumerate(places):
        images[i, c, y, x] = (images[i, c, y, x] + config.levels // 2) % config.levels
    with torch.no_grad():
        logits = model.prior(images).permute(0, 3, 4, 2, 1).flatten(1, 3)
    for i in range(len(places) - 1):
        assert torch.equal(logits[i, : i + 1], logits[-1, : i + 1])
        assert not torch.equal(logits[i, i + 1 :], logits[-1, i + 1 :])


def test_gated_block_is_the_formula_of_the_paper(make_model):
    block = make_model(gain=1).prior.blocks[0]
    v, h = torch.randn((2, 1, 7, 4, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        above = block.vertical(v)
        own = block.horizontal(h) + block.link(above)
        gated = [a[:, :7].tanh() * a[:, 7:].sigmoid() for a in (above, own)]
        assert_close(block(v, h, None), (gated[0], h + block.mix(gated[1])))


def test_conditional_gates_add_features_to_both_preactivations(make_model):
    block = make_model(gain=1, conditional_gates=True).prior.blocks[0]
    random = torch.Generator().manual_seed(0)
    v, h = torch.randn((2, 1, 7, 4, 5), generator=random)
    f = torch.randn((1, 4, 4, 5), generator=random)
    with torch.no_grad():
        gates = block.conditional_vertical, block.conditional_horizontal
        added = [torch.einsum("oi,nihw->nohw", layer.weight[..., 0, 0], f) for layer in gates]
        above = block.vertical(v) + added[0]
        own = block.horizontal(h) + block.link(above) + added[1]
        gated = [a[:, :7].tanh() * a[:, 7:].sigmoid() for a in (above, own)]
        assert_close(block(v, h, f), (gated[0], h + block.mix(gated[1])))


def test_conditional_gates_start_without_effect_and_learn(make_images):
    torch.manual_seed(0)
    model = PRSR(dataclasses.replace(PRSRConfig.preset("tiny"), conditional_gates=True))
    plain = PRSR(PRSRConfig.preset("tiny"))
    plain.load_state_dict(model.state_dict(), strict=False)
    pair = make_images(model.config, 2, 2, 3), make_images(model.config, 2, 4, 6)
    assert torch.equal(model(*pair).logits, plain(*pair).logits)
    prsr_loss(model(*pair), pair[1]).backward()
    for layer in model.prior.modules():
        if isinstance(layer, ConditionalGates):
            assert layer.bias is None
            assert layer.weight.grad.abs().min() > 0


def test_prior_with_conditional_gates_needs_features(make_model, make_images):
    model = make_model(conditional_gates=True)
    with pytest.raises(TypeError, match="features must be a tensor for a prior with conditional"):
        model.prior(make_images(model.config, 1, 4, 6))


@pytest.mark.parametrize("part", ["conditioning", "prior"])
def test_forward_hooks_of_the_last_layers_are_called(make_model, make_images, part):
    model = make_model()
    last = model.conditioning[-1] if part == "conditioning" else model.prior.head[2]
    seen = []
    last.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    output = model(make_images(model.config, 2, 2, 3), make_images(model.config, 2, 4, 6))
    assert len(seen) == 1
    assert torch.equal(seen[0], getattr(output, f"{part}_logits"))


def test_masked_weights_are_never_read(make_model, make_images):
    model = make_model()
    image = make_images(model.config, 2, 6, 6)
    expected = model.prior(image)
    for layer in model.prior.modules():
        if isinstance(layer, RowConvolution):
            layer.weight.data[~layer.mask] = torch.nan
    assert torch.equal(model.prior(image), expected)


def test_output_j_belongs_to_colour_j_mod_d_and_level_j_div_d():
    config = PRSRConfig(channels=3, levels=5)
    outputs = torch.arange(15.0).view(1, 15, 1, 1).expand(2, 15, 4, 6)
    bias = torch.arange(0, 1500.0, 100)
    logits = logits_of(outputs, torch.eye(15)[..., None, None], bias, config)
    assert logits.shape == (2, 5, 3, 4, 6)
    for j in range(15):
        assert bool((logits[:, j // 3, j % 3] == 101 * j).all())


def test_network_inputs_range_from_minus_one_half_to_one_half():
    assert to_network_input(torch.tensor([0, 255], dtype=torch.uint8), 256).tolist() == [-0.5, 0.5]
    assert to_network_input(torch.tensor([0, 1, 2], dtype=torch.uint8), 3).tolist() == [
        -0.5,
        0.0,
        0.5,
    ]


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (4, 2)])
def test_forward_accepts_any_size_and_adds_the_two_networks(
    make_model, make_images, scale, height, width
):
    model = make_model(scale=scale)
    config = model.config
    lr = make_images(config, 2, height, width)
    hr = make_images(config, 2, scale * height, scale * width)
    output = model(lr, hr)
    assert output.logits.shape == (2, 8, 3, scale * height, scale * width)
    assert torch.equal(output.conditioning_logits, model.conditioning(lr))
    assert torch.equal(output.prior_logits, model.prior(hr))
    assert torch.equal(output.logits, output.conditioning_logits + output.prior_logits)


def test_conditioning_network_has_the_layers_of_the_paper():
    model = PRSR(PRSRConfig(conditioning_blocks=2, conditioning_channels=5, levels=7))
    kinds = [type(layer) for layer in model.conditioning]
    doubling = [ResNetBlock] * 2 + [nn.ConvTranspose2d, nn.ReLU]
    assert kinds == [nn.Conv2d, *doubling * 2, *[ResNetBlock] * 2, Logits]
    assert model.conditioning[0].kernel_size == model.conditioning[-1].kernel_size == (1, 1)
    assert model.conditioning[-1].weight.shape == (7 * 3, 5, 1, 1)


def test_resnet_block_adds_its_input():
    block = ResNetBlock(4).eval()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.linspace(-1, 1, 36).view(1, 4, 3, 3)
    assert torch.equal(block(x), x)


def test_initial_weights_are_a_narrow_truncated_normal_and_biases_zero():
    torch.manual_seed(0)
    model = PRSR(PRSRConfig(prior_layers=2, conditioning_blocks=1))
    layers = [x for x in model.modules() if isinstance(x, (nn.Conv2d, nn.ConvTranspose2d))]
    weights = torch.cat([layer.weight.detach().flatten() for layer in layers])
    assert weights.abs().max() <= 0.2
    # Standard deviation of a normal distribution truncated at two standard deviations.
    assert_close(weights.std(), torch.tensor(0.1 * 0.8796), atol=2e-4, rtol=0)
    assert all(not layer.bias.any() for layer in layers)


def test_loss_is_the_sum_of_both_cross_entropies(make_model, make_images):
    model = make_model()
    hr = make_images(model.config, 2, 4, 6)
    output = model(make_images(model.config, 2, 2, 3), hr)
    total = 0.0
    for logits in (output.logits, output.conditioning_logits):
        p = logits.detach().double().softmax(dim=1)
        chosen = [
            p[n, int(hr[n, c, y, x]), c, y, x] for n in range(2) for y, x, c in raster(4, 6, 3)
        ]
        total -= sum(map(math.log, chosen)) / len(chosen)
    assert_close(prsr_loss(output, hr).item(), total, rtol=1e-5, atol=0)


def test_every_weight_of_the_prior_learns_except_those_under_a_mask(make_model, make_images):
    model = make_model(gain=0.5)
    nn.init.constant_(model.prior.head[0].bias, 5)  # no unit of the head is inactive by chance
    hr = make_images(model.config, 4, 6, 6)
    prsr_loss(model(make_images(model.config, 4, 3, 3), hr), hr).backward()
    for name, layer in model.prior.named_modules():
        for kind, parameter in layer.named_parameters(recurse=False):
            hidden = isinstance(layer, RowConvolution) and kind == "weight"
            expected = layer.mask if hidden else torch.ones_like(parameter, dtype=torch.bool)
            assert torch.equal(parameter.grad != 0, expected), f"{name}.{kind}"


@pytest.mark.parametrize("name", ["lr", "hr"])
def test_bits_per_dim_refuses_levels_that_the_model_lacks(make_model, make_images, name):
    model = make_model()
    images = {"lr": make_images(model.config, 1, 2, 2), "hr": make_images(model.config, 1, 4, 4)}
    images[name][0, 0, 0, 0] = model.config.levels
    with pytest.raises(ValueError, match=f"^{name} must hold values below 8"):
        bits_per_dim(model, **images)


def test_bits_per_dim_of_uniform_logits_is_log2_of_the_levels(make_images):
    model = PRSR(PRSRConfig.preset("tiny"))
    for layer in (model.conditioning[-1], model.prior.head[2]):
        nn.init.zeros_(layer.weight)
    lr, hr = make_images(model.config, 3, 2, 2), make_images(model.config, 3, 4, 4)
    assert_close(bits_per_dim(model, lr, hr), torch.full((3,), 3.0))


def test_bits_per_dim_is_the_loss_of_each_image_in_bits(make_model, make_images):
    model = make_model()
    lr, hr = make_images(model.config, 3, 2, 2), make_images(model.config, 3, 4, 4)
    bits = bits_per_dim(model, lr, hr)
    for i in range(3):
        logits = model(lr[i : i + 1], hr[i : i + 1]).logits
        nats = F.cross_entropy(logits, hr[i : i + 1].long())
        assert_close(bits[i], nats.detach() / math.log(2))
    assert not bits.requires_grad


def test_bits_per_dim_keeps_modes_and_statistics(make_model, make_images):
    model = make_model().train()
    model.conditioning[1].eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    lr, hr = make_images(model.config, 3, 2, 2), make_images(model.config, 3, 4, 4)
    bits = bits_per_dim(model, lr, hr)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(bits, bits_per_dim(model.eval(), lr, hr))


def gradients(model, lr, hr):
    """Logits, loss and gradients of a training step."""
    model.zero_grad()
    output = model(lr, hr)
    loss = prsr_loss(output, hr)
    loss.backward()
    return output.logits, loss, [parameter.grad.clone() for parameter in model.parameters()]


def test_compiled_training_step_equals_the_plain_one(make_model, make_images):
    model = make_model(gain=1, prior_layers=1, conditioning_blocks=0)
    pair = make_images(model.config, 2, 2, 3), make_images(model.config, 2, 4, 6)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_close(gradients(compiled, *pair), gradients(model, *pair))


def test_distributed_training_step_equals_the_plain_one(make_model, make_images, tmp_path):
    model = make_model(gain=1)
    pair = make_images(model.config, 2, 2, 3), make_images(model.config, 2, 4, 6)
    expected = gradients(model, *pair)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(model)
        assert_close(gradients(parallel, *pair), expected)
    finally:
        dist.destroy_process_group()


def test_bf16_autocast_stays_close_to_fp32(make_model, make_images):
    model = make_model(gain=1)
    pair = make_images(model.config, 2, 2, 3), make_images(model.config, 2, 4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(*pair)
        loss = prsr_loss(output, pair[1])
    assert output.prior_logits.dtype == torch.bfloat16
    plain = model(*pair)
    assert_close(loss.float(), prsr_loss(plain, pair[1]), atol=0.03, rtol=0)
    assert_close(output.logits.float(), plain.logits, atol=0.15, rtol=0)


def test_loss_of_bf16_logits_does_not_round_their_sum(make_model, make_images):
    model = make_model(gain=4)
    hr = make_images(model.config, 2, 4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(make_images(model.config, 2, 2, 3), hr)
    parts = [logits.double() for logits in (output.conditioning_logits, output.prior_logits)]
    expected = F.cross_entropy(sum(parts), hr.long()) + F.cross_entropy(parts[0], hr.long())
    assert_close(prsr_loss(output, hr).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_model_of_another_precision_runs_and_is_sampled(make_model, make_images, dtype):
    model = make_model(gain=1).to(dtype)
    lr, hr = make_images(model.config, 2, 2, 3), make_images(model.config, 2, 4, 6)
    assert model(lr, hr).logits.dtype == dtype
    assert prsr.sample(lr, model=model, seed=1).shape == (2, 3, 4, 6)


def test_loss_of_images_that_do_not_match_the_logits_is_refused(make_model, make_images):
    model = make_model()
    hr = make_images(model.config, 2, 4, 6)
    output = model(make_images(model.config, 2, 2, 3), hr)
    for wrong in (hr.permute(0, 2, 3, 1), hr[:1], hr[:, :, :2]):
        with pytest.raises(ValueError, match=r"hr must be \[2, 3, 4, 6\], like the logits, got"):
            prsr_loss(output, wrong)
    for wrong in (hr.float(), hr.numpy()):
        with pytest.raises(TypeError, match="hr must be a uint8 tensor, got"):
            prsr_loss(output, wrong)


def test_levels_above_the_models_are_refused_by_name(make_model):
    model = make_model()
    lr, hr = torch.zeros((1, 3, 1, 1)).byte(), torch.full((1, 3, 2, 2), 8).byte()
    with pytest.raises(ValueError, match="hr must hold values below 8"):
        bits_per_dim(model, lr, hr)


@pytest.mark.parametrize(
    ("argument", "shape", "dtype", "error", "message"),
    [
        ("lr", (2, 3, 2, 3), torch.float32, TypeError, "lr must be a uint8 tensor, got torch.fl"),
        ("hr", (2, 3, 4, 6), torch.int64, TypeError, "hr must be a uint8 tensor, got torch.int64"),
        ("lr", (3, 2, 3), torch.uint8, ValueError, r"lr must be \[N, 3, height, width\]"),
        ("hr", (2, 1, 4, 6), torch.uint8, ValueError, r"hr must be \[N, 3, height, width\]"),
        ("lr", (2, 3, 0, 3), torch.uint8, ValueError, "lr must be"),
        ("hr", (2, 3, 4, 5), torch.uint8, ValueError, r"hr must be \[2, 3, 4, 6\], 2 times lr"),
        ("hr", (1, 3, 4, 6), torch.uint8, ValueError, r"hr must be \[2, 3, 4, 6\]"),
    ],
)
def test_images_that_do_not_match_are_refused_by_name(
    make_model, make_images, argument, shape, dtype, error, message
):
    model = make_model()
    pair = {"lr": make_images(model.config, 2, 2, 3), "hr": make_images(model.config, 2, 4, 6)}
    with pytest.raises(error, match=message):
        model(**pair | {argument: torch.zeros(shape, dtype=dtype)})


def test_model_requires_a_configuration():
    with pytest.raises(TypeError, match="config must be a PRSRConfig, got dict"):
        PRSR(PRSRConfig().to_dict())
