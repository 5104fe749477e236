"""The effective weights of a prior, including parametrised ones.

Parametrisations (``torch.nn.utils.parametrize``) compute a weight whenever it is read; pruning and
the older ``weight_norm`` and ``spectral_norm`` compute it in a hook before each forward pass.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from types import FunctionType

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from prsr.config import PRSRConfig
from prsr.models.eval_mode import evaluating
from prsr.models.networks import PriorNetwork
from prsr.utils.argument_checks import check_finite

HOOKS = "_forward_hooks", "_forward_pre_hooks"
"""Where modules store the hooks of a forward pass."""

REPARAMETRISING = (BasePruningMethod, SpectralNorm, WeightNorm)
"""Hooks before a forward pass that compute a weight from others."""


@torch.no_grad()
def recompute_weights(network: nn.Module) -> None:
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


def inner_module(network: nn.Module, name: str) -> nn.Module:
    """A module by its name without the wrappers of ``torch.compile``, which it goes through."""
    module = unwrapped(network)
    for part in name.split(".") if name else []:
        module = unwrapped(module.get_submodule(part))
    return module


def whole_copy(prior: PriorNetwork) -> PriorNetwork:
    """A float32 copy of the prior including its hooks.

    Raises:
        ValueError: something in it, such as a hook, cannot be copied, or an effective weight is not
            finite.
    """
    with evaluating(prior):
        recompute_weights(prior)
        try:
            copied = copy.deepcopy(prior)
        except Exception as error:  # of many kinds: hooks hold anything
            raise ValueError(
                f"the prior cannot be copied, perhaps because of hooks: {error}"
            ) from error
    for (name, module), other in zip(prior.named_modules(), copied.modules(), strict=True):
        if hooked(module) and not hooked(other):  # torch.compile's wrapper loses them
            raise ValueError(
                f"the forward hooks of prior.{name} must be registered on the module that "
                f"{type(module).__name__} wraps, because the wrapper cannot be copied with them"
            )
    copied = copied.float().eval().requires_grad_(False)
    recompute_weights(copied)
    for name, module in copied.named_modules():
        for key in ("weight", "bias"):
            value = getattr(module, key, None)
            if isinstance(value, Tensor):
                check_finite(value, f"effective weight prior.{name}.{key}")
    return copied


def plain_copy(prior: PriorNetwork) -> PriorNetwork:
    """The prior as a plain float32 network with its effective weights.

    Raises:
        ValueError: there is an :func:`obstacle`, or an effective weight is not finite.
    """
    if reason := obstacle(prior, prior.config):
        raise ValueError(reason)
    with torch.device("meta"):
        plain = PriorNetwork(prior.config)
    with evaluating(prior), torch.no_grad():
        recompute_weights(prior)
        for name, layer in plain.named_modules():
            found = inner_module(prior, name)
            for key in list(layer._parameters):
                value = getattr(found, key)
                if value is not None:
                    check_finite(value, f"effective weight prior.{name}.{key}")
                    value = nn.Parameter(value.detach().float().clone(), requires_grad=False)
                setattr(layer, key, value)
            for key in layer._buffers:
                setattr(layer, key, getattr(found, key).clone())
    return plain.eval()


@dataclass(frozen=True)
class Layer:
    """What one module of a prior must be for its weights to determine its result.

    Attributes:
        kind: its class; a subclass may only add to it.
        settings: its public attributes, such as strides.
        methods: the names of the functions that its class defines.
    """

    kind: type[nn.Module]
    settings: dict[str, object]
    methods: tuple[str, ...]

    @classmethod
    def of(cls, module: nn.Module) -> Layer:
        """The description of prior's own module."""
        kind = type(module)
        classes = [each for each in kind.__mro__ if issubclass(each, nn.Module)]
        defined = {name for each in classes[:-1] for name in vars(each) if is_function(each, name)}
        settings = {
            name: value for name, value in vars(module).items() if name[0] != "_" and name != MODE
        }
        return cls(kind, settings, ("__call__", *sorted(defined - NO_ARITHMETIC)))

    def difference(self, module: nn.Module | None) -> str:
        """How a module differs, as the end of a sentence; empty if it does not."""
        if not isinstance(module, self.kind):
            found = "absent" if module is None else type(module).__name__
            return f" must be {self.kind.__name__}, it is {found}"
        own, kind = vars(module), type(module)
        if kind is not self.kind or not own.keys().isdisjoint(self.methods):
            for name in self.methods:
                if name in own or getattr(kind, name) is not getattr(self.kind, name):
                    return f".{name} must be that of {self.kind.__name__}"
        if list(map(own.get, self.settings)) == list(self.settings.values()):  # the fast way
            return ""
        for name, value in self.settings.items():
            if name not in own or own[name] != value:
                return f".{name} must be {value}, it is {own.get(name, 'absent')}"
        return ""


MODE = "training"
"""The attribute that does not matter, because sampling uses evaluation mode."""

NO_ARITHMETIC = {"__init__", "__setstate__", "__repr__", "reset_parameters", "extra_repr"}
"""Methods that a forward pass does not call."""


def is_function(owner: type, name: str) -> bool:
    """Whether a class itself defines a function of this name."""
    return isinstance(vars(owner)[name], FunctionType)


@lru_cache
def layers_of(config: PRSRConfig) -> dict[str, Layer]:
    """The description of every module of a prior by name; "" is the prior itself."""
    with torch.device("meta"):
        network = PriorNetwork(config)
    return {name: Layer.of(module) for name, module in network.named_modules()}


def obstacle(prior: nn.Module, config: PRSRConfig) -> str:
    """Why the weights of a prior do not determine its result; empty if they do.

    Hooks that compute weights from others are allowed, and so are parametrisations and the wrapper
    of ``torch.compile``. Any other hook may change the result.
    """
    if has_global_hooks():
        return f"torch must have no global forward hooks{REMEDY}"
    expected, found = layers_of(config), {}
    for name, module in prior.named_modules():
        if "parametrizations" in name:  # reading a weight calls these, hooks included
            continue
        if "_orig_mod" in name:
            name = ".".join(part for part in name.split(".") if part != "_orig_mod")
        if (module._forward_hooks or module._forward_pre_hooks) and hooked(module):
            return sentence_about(name, " must have no forward hooks")
        if name not in expected:
            return sentence_about(name, f" must be absent, it is {type(module).__name__}")
        found[name] = module  # the wrapper first, then what it wraps
    for name, layer in expected.items():
        if difference := layer.difference(found.get(name)):
            return sentence_about(name, difference)
    return ""


REMEDY = ", because the engine only reads the prior's weights; engine='reference' calls the prior"


def sentence_about(name: str, difference: str) -> str:
    """The sentence about what is wrong with one module."""
    return f"{f'prior.{name}' if name else 'prior'}{difference}{REMEDY}"


def has_global_hooks() -> bool:
    """Whether torch calls hooks for the forward pass of every module."""
    return any(getattr(torch_module, f"_global{kind}") for kind in HOOKS)


def hooked(module: nn.Module) -> bool:
    """Whether a module has hooks that may change the result of a forward pass."""
    return any(
        not isinstance(hook, REPARAMETRISING)
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        for hook in hooks.values()
    )
