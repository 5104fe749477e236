"""Packed weights of priors, kept between calls while the weights are unchanged."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from prsr.engines.base import Engine
from prsr.engines.weight_changes import Snapshot
from prsr.models.networks import PriorNetwork
from prsr.utils.argument_checks import check_finite


@dataclass(frozen=True)
class Kept:
    """What is kept of one prior.

    Attributes:
        snapshot: the parameters and buffers that were packed.
        packed: the packed weights by :meth:`Engine.layout`.
    """

    snapshot: Snapshot
    packed: dict[tuple[str, ...], Any] = field(default_factory=dict)


_kept: WeakKeyDictionary[nn.Module, Kept] = WeakKeyDictionary()
_lock = Lock()


def packed_weights(engine: Engine, prior: PriorNetwork, precision: str) -> Any:
    """The result of :meth:`Engine.pack`, computed again only if the weights have changed.

    It is kept as long as the prior exists. Nothing is kept for an engine that calls the prior: its
    copy also contains hooks, whose changes a snapshot does not show and which may refer to the
    prior, so that it would exist for ever.

    Raises:
        ValueError: a weight is not finite, or the engine cannot pack the prior.
    """
    layout = engine.layout(precision)
    with _lock:
        kept = _kept.get(prior)
    # Taken before packing: a change during packing is then noticed by the next call.
    if engine.calls_prior or kept is None or not kept.snapshot.matches(prior):
        for name, value in prior.state_dict().items():
            check_finite(value, f"weight prior.{name}")
        if engine.calls_prior:
            return engine.pack(prior, precision)
        kept = Kept(Snapshot(prior))
    if layout not in kept.packed:
        kept.packed[layout] = engine.pack(prior, precision)
        with _lock:
            _kept[prior] = kept
    return kept.packed[layout]
