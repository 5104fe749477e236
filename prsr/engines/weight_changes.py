"""Whether the weights of a network have changed since they were packed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prsr.engines.cpu import instruction_sets, same_memory


def named_tensors(network: nn.Module) -> tuple[list[str], list[Tensor]]:
    """The local names of all parameters and buffers of a network, and these themselves."""
    names, tensors = [], []
    for module in network.modules():
        for members in (module._parameters, module._buffers):
            for name, tensor in members.items():
                if tensor is not None:
                    names.append(name)
                    tensors.append(tensor)
    return names, tensors


def layout_of(tensor: Tensor) -> tuple[object, ...]:
    """Everything about a tensor except its values."""
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


class Snapshot:
    """Copies of all parameters and buffers of a network, to compare with them later.

    The values are compared, because a write through ``.data`` changes no version counter. On a CPU
    the extension compares memory: ``torch.equal`` takes several times as long, and its threads
    would afterwards spin on the cores that the engine needs.
    """

    def __init__(self, network: nn.Module) -> None:
        self._names, tensors = named_tensors(network)
        self._layouts = [layout_of(tensor) for tensor in tensors]
        self._copies = [tensor.detach().clone() for tensor in tensors]
        # A clone is dense. If the layouts are equal, so is the tensor that it was made of.
        self._in_memory = bool(instruction_sets()) and all(
            copy.is_cpu and layout_of(copy) == layout
            for copy, layout in zip(self._copies, self._layouts, strict=True)
        )
        self._addresses = [copy.data_ptr() for copy in self._copies]
        self._sizes = [copy.numel() * copy.element_size() for copy in self._copies]

    def matches(self, network: nn.Module) -> bool:
        """Whether the network has the same tensors with the same values."""
        names, tensors = named_tensors(network)
        if names != self._names or [layout_of(tensor) for tensor in tensors] != self._layouts:
            return False
        if self._in_memory:
            addresses = [tensor.data_ptr() for tensor in tensors]
            return same_memory(addresses, self._addresses, self._sizes)
        return all(map(torch.equal, tensors, self._copies))
