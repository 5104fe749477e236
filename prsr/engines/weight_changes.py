"""Whether the weights of a network have changed since they were packed."""

from __future__ import annotations

from collections.abc import Iterable
from operator import is_

import torch
from torch import Tensor, nn

from prsr.engines.cpu import instruction_sets, same_memory


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
        # Not the network itself, which would keep it alive in a dictionary of weak references.
        self._submodules = list(network.modules())[1:]
        self._members = members_of([network, *self._submodules])
        self.tensors = [member for member in self._members if isinstance(member, Tensor)]
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
        members = members_of([network, *self._submodules])
        if len(members) != len(self._members) or not all(map(is_, members, self._members)):
            return False
        if [layout_of(tensor) for tensor in self.tensors] != self._layouts:
            return False
        if self._in_memory:
            addresses = [tensor.data_ptr() for tensor in self.tensors]
            return same_memory(addresses, self._addresses, self._sizes)
        return all(map(torch.equal, self.tensors, self._copies))
