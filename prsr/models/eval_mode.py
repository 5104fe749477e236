"""Using a model in evaluation mode without changing the mode that its caller sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from weakref import WeakKeyDictionary

from torch import nn


@dataclass
class Use:
    """Number of threads that use a module in evaluation mode, and its mode before."""

    users: int
    training: bool


_uses: WeakKeyDictionary[nn.Module, Use] = WeakKeyDictionary()
_lock = Lock()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode; afterwards, restore the mode of each.

    Several threads may use one module at a time: the last of them restores its mode.
    """
    with _lock:
        # All other modules were in evaluation mode before: nothing to restore.
        modules = [module for module in model.modules() if module.training or module in _uses]
        for module in modules:
            _uses.setdefault(module, Use(0, module.training)).users += 1
            module.training = False
    try:
        yield
    finally:
        with _lock:
            for module in modules:
                use = _uses[module]
                use.users -= 1
                if not use.users:
                    module.training = use.training
                    del _uses[module]
