"""Whether the weights of a network have changed since they were packed."""

from __future__ import annotations

from collections.abc import Iterable
from operator import is_
from typing import cast
from weakref import ref

import torch
from torch import Tensor, nn

from prsr.engines.native import instruction_sets, same_memory


def members_of(modules: Iterable[nn.Module]) -> list[object]:
    """The children, parameters and buffers of modules, in order."""
    return [
        member
        for module in modules
        for members in (module._modules, module._parameters, module._buffers)
        for member in members.values()
    ]


def layout_of(tensor: Tensor) -> tuple[object, ...]:
    """Everything about a tensor except its values."""
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


class Snapshot:
    """Copies of all parameters and buffers of a network, to compare with them later.

    The values are compared, because a write through ``.data`` changes no version counter. On a CPU
    the extension compares memory: ``torch.equal`` takes several times as long, and its threads
    would afterwards spin on the cores that the engine needs.

    Attributes:
        tensors: the parameters and buffers themselves.
    """

    def __init__(self, network: nn.Module) -> None:
        # No module itself: their hooks may refer to the network, and a snapshot in a dictionary of
        # weak references would keep it alive.
        self._submodules = [ref(module) for module in list(network.modules())[1:]]
        members = members_of(network.modules())
        self._members = [ref(each) if isinstance(each, nn.Module) else each for each in members]
        self.tensors = [member for member in members if isinstance(member, Tensor)]
        self._layouts = [layout_of(tensor) for tensor in self.tensors]
        self._copies = [tensor.detach().clone() for tensor in self.tensors]
        # A clone is dense. If the layouts are equal, so is the tensor that it was made of.
        self._in_memory = bool(instruction_sets()) and all(
            copy.is_cpu and layout_of(copy) == layout
            for copy, layout in zip(self._copies, self._layouts, strict=True)
        )
        self._addresses = [copy.data_ptr() for copy in self._copies]
        self._sizes = [copy.numel() * copy.element_size() for copy in self._copies]

    def matches(self, network: nn.Module) -> bool:
        """Whether the network has the same modules and tensors, with the same values."""
        submodules = [reference() for reference in self._submodules]
        if None in submodules:
            return False
        members = members_of([network, *cast(list[nn.Module], submodules)])
        expected = [each() if type(each) is ref else each for each in self._members]
        if len(members) != len(expected) or not all(map(is_, members, expected)):
            return False
        if [layout_of(tensor) for tensor in self.tensors] != self._layouts:
            return False
        if self._in_memory:
            addresses = [tensor.data_ptr() for tensor in self.tensors]
            return same_memory(addresses, self._addresses, self._sizes)
        return all(map(torch.equal, self.tensors, self._copies))
