"""Borrowing a model for evaluation without changing how its owner left it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from weakref import WeakKeyDictionary

from torch import nn


@dataclass
class Loan:
    """How many borrow a module just now, and the mode that its owner left it in."""

    borrowers: int
    training: bool


_loans: WeakKeyDictionary[nn.Module, Loan] = WeakKeyDictionary()
_lock = Lock()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode, and each back in its own mode afterwards.

    Several threads may borrow one module: the last of them puts it back.
    """
    with _lock:
        # The others are in evaluation mode as their owner left them: nothing to put back.
        modules = [module for module in model.modules() if module.training or module in _loans]
        for module in modules:
            _loans.setdefault(module, Loan(0, module.training)).borrowers += 1
            module.training = False
    try:
        yield
    finally:
        with _lock:
            for module in modules:
                loan = _loans[module]
                loan.borrowers -= 1
                if not loan.borrowers:
                    module.training = loan.training
                    del _loans[module]
