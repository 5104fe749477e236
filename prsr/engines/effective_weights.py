"""The effective weights of a prior, including parametrised ones.

Parametrisations (``torch.nn.utils.parametrize``) compute a weight whenever it is read; pruning and
the older ``weight_norm`` and ``spectral_norm`` compute it in a hook before each forward pass.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from prsr.models.eval_mode import evaluating
from prsr.models.networks import PriorNetwork
from prsr.utils.argument_checks import check_finite

REPARAMETRISING = (BasePruningMethod, SpectralNorm, WeightNorm)
"""Hooks before a forward pass that compute a weight from others."""


@torch.no_grad()
def renew(network: nn.Module) -> None:
    """Recompute the weights that hooks compute, as a forward pass would."""
    for module in network.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, REPARAMETRISING):
                hook(module, None)


def unwrapped(module: nn.Module) -> nn.Module:
    """A module without the wrapper that ``torch.compile`` puts around it."""
    inner = getattr(module, "_orig_mod", module)
    assert isinstance(inner, nn.Module)
    return inner


def whole_copy(prior: PriorNetwork) -> PriorNetwork:
    """A float32 copy of the prior including its hooks.

    Raises:
        ValueError: something in it cannot be copied, or an effective weight is not finite.
    """
    with evaluating(prior):
        renew(prior)
        try:
            copied = copy.deepcopy(prior)
        except Exception as error:  # of many kinds: hooks hold anything
            raise ValueError(
                f"the prior cannot be copied, perhaps because of hooks: {error}"
            ) from error
    copied = copied.float().eval().requires_grad_(False)
    renew(copied)
    for name, module in copied.named_modules():
        for key in ("weight", "bias"):
            value = getattr(module, key, None)
            if isinstance(value, Tensor):
                check_finite(value, f"effective weight prior.{name}.{key}")
    return copied


def plain_copy(prior: PriorNetwork) -> PriorNetwork:
    """The prior as a plain float32 network with its effective weights.

    Raises:
        ValueError: a layer is not one of :class:`PriorNetwork`'s own, so that its weights do not
            determine its result, or an effective weight is not finite.
    """
    network = unwrapped(prior)
    with torch.device("meta"):
        plain = PriorNetwork(prior.config)
    with evaluating(network), torch.no_grad():
        renew(network)
        expected, found = dict(plain.named_modules()), modules_of(network)
        for name in expected.keys() | found.keys():
            check_layer(name, expected.get(name), found.get(name))
        for name, layer in expected.items():
            for key in list(layer._parameters):
                value = getattr(found[name], key)
                if value is not None:
                    check_finite(value, f"effective weight prior.{name}.{key}")
                    value = nn.Parameter(value.detach().float().clone(), requires_grad=False)
                setattr(layer, key, value)
            for key in layer._buffers:
                setattr(layer, key, getattr(found[name], key).clone())
    return plain.eval()


def modules_of(network: nn.Module) -> dict[str, nn.Module]:
    """The modules of a network by name, without parametrisations and wrappers."""
    found = {}
    for name, module in network.named_modules():
        parts = name.split(".")
        if "parametrizations" not in parts:
            plain = ".".join(part for part in parts if part != "_orig_mod")
            found[plain] = unwrapped(module)
    return found


def check_layer(name: str, expected: nn.Module | None, found: nn.Module | None) -> None:
    """Check that a layer computes the same function of its weights as the prior's own layer.

    Raises:
        ValueError: it does not.
    """
    if (
        expected is None
        or found is None
        or "forward" in vars(found)
        or type(found).forward is not type(expected).forward
    ):
        kind = "absent" if found is None else type(found).__name__
        wanted = "nothing" if expected is None else type(expected).__name__
        raise ValueError(
            f"prior.{name} must be {wanted}, because engines read its weights; it is {kind}: merge "
            "it into a plain layer, or use engine='reference', which calls it"
        )
