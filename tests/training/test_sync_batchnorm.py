"""Batch normalisation over all processes."""

import torch
from torch import nn

from prsr.training.sync_batchnorm import SynchronousBatchNorm2d, synchronise_batch_norm


def test_synchronous_normalisation_of_one_process_equals_the_usual_one(make_model):
    model = make_model(seed=1)
    twin = make_model(seed=2)
    synchronise_batch_norm(twin, torch.device("cpu"))
    twin.load_state_dict(model.state_dict())
    kinds = [type(layer) for layer in twin.modules()]
    assert nn.BatchNorm2d not in kinds
    assert kinds.count(SynchronousBatchNorm2d) == 4
    lr = torch.randint(8, (5, 3, 3, 3), dtype=torch.uint8)
    for training in (True, False):
        outputs = []
        for one in (model, twin):
            one.train(training)
            outputs.append(one.conditioning(lr))
            outputs[-1].square().mean().backward()
        assert torch.allclose(*outputs, atol=1e-5)
    for (name, one), two in zip(model.named_parameters(), twin.parameters(), strict=True):
        if one.grad is not None:
            assert torch.allclose(one.grad, two.grad, atol=1e-5), name
    for (name, one), two in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.allclose(one, two, atol=1e-5), name


def test_synchronous_normalisation_of_bf16_has_fp32_statistics():
    layer = SynchronousBatchNorm2d(3)
    x = 100 + torch.randn(4, 3, 8, 8)
    y = layer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert torch.allclose(layer.running_mean, 0.1 * x.bfloat16().float().mean((0, 2, 3)), rtol=1e-6)


def test_torchs_own_layers_are_used_on_gpus(make_model):
    model = make_model(seed=1)
    lr = torch.randint(8, (5, 3, 3, 3), dtype=torch.uint8)
    before = model.state_dict()
    expected = model.eval().conditioning(lr)
    synchronise_batch_norm(model, torch.device("cuda"))
    kinds = [type(layer) for layer in model.modules()]
    assert nn.BatchNorm2d not in kinds
    assert kinds.count(nn.SyncBatchNorm) == 4
    assert model.state_dict().keys() == before.keys()
    assert torch.equal(model.conditioning(lr), expected)
