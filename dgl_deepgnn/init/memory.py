"""Which weight a tensor is, told by the memory that it lies in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Weights", "multiply", "tensors_in", "unexpanded", "whole"]

_aten = torch.ops.aten
# Of weights alone, these make a weight: copies, casts, parts, and what is composed of them.
_COPIES = {_aten.clone, _aten._to_copy, _aten.index, _aten.index_select, _aten.mul, _aten.div}
_COPIES |= {_aten.neg, _aten.mm, _aten.bmm, _aten.repeat}


class Weights:
    """The parameters of a model, and what its run makes of them.

    A transposed weight, a third of a packed projection or one relation's matrix lies in the memory
    of its parameter; a copy, a cast, a sum of bases or a normalized weight is followed to the
    parameters it is made of.

    Parameters
    ----------
    module : nn.Module
        The model. Frozen parameters count as constants, and so do those of ``nn.LSTM`` and its
        like, which some devices run in one kernel that nobody can look into.
    """

    def __init__(self, module: nn.Module) -> None:
        recurrent = [part for part in module.modules() if isinstance(part, nn.RNNBase)]
        left = {id(p) for part in recurrent for p in part.parameters()}
        self._parameters: dict[int, tuple[str, nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and id(parameter) not in left and _has_memory(parameter):
                self._parameters.setdefault(_memory(parameter), (name, parameter))
        self._made: dict[int, list[Tensor]] = {}

    def parameter(self, tensor: object) -> nn.Parameter | None:
        """Return the parameter that a tensor is, or is a part of."""
        if not isinstance(tensor, Tensor) or not _has_memory(tensor):
            return None
        return self._parameters.get(_memory(tensor), ("", None))[1]

    def handles(self, tensor: object) -> list[Tensor]:
        """What to scale so that a tensor is scaled: itself, or what it is made of; else nothing."""
        if not isinstance(tensor, Tensor) or not _has_memory(tensor):
            return []
        memory = _memory(tensor)
        return [tensor] if memory in self._parameters else self._made.get(memory, [])

    def name(self, tensor: Tensor) -> str:
        """Name of the first parameter that a tensor is made of."""
        return self._parameters[_memory(self.handles(tensor)[0])][0]

    def follow(self, packet: Any, args: tuple[Any, ...], out: Any) -> None:
        """Note what an operation makes of weights, and forget memory that it uses anew."""
        inputs = [tensor for tensor in tensors_in(args) if _has_memory(tensor)]
        inside = {_memory(tensor) for tensor in inputs}
        results = [_memory(t) for t in tensors_in((out,)) if _has_memory(t)]
        new = [memory for memory in results if memory not in inside]
        for memory in new:
            self._made.pop(memory, None)
        sources = [self.handles(tensor) for tensor in inputs]
        if not new or not any(sources):
            return
        if packet is _aten._weight_norm_interface:
            self._made[new[0]] = self.handles(args[1])
        elif packet in (_aten.cat, _aten.stack):
            if all(sources):
                self._made[new[0]] = [handle for source in sources for handle in source]
        elif packet in _COPIES:
            others = [t for t, source in zip(inputs, sources, strict=True) if not source]
            # Numbers beside the weight are features, if they make more of it.
            largest = max(sources, key=_size)
            if not any(t.is_floating_point() for t in others) or _numel(out) <= _size(largest):
                self._made[new[0]] = largest

    def key(self, tensor: Tensor) -> tuple[object, ...]:
        """What tells a weight, or the part of one, from others, and from what is made of it."""
        handles = self.handles(tensor)
        places = ((_memory(h), h.storage_offset(), unexpanded(h).numel()) for h in handles)
        return (_memory(tensor) in self._parameters, *places)


def unexpanded(tensor: Tensor) -> Tensor:
    """Entries of an expanded tensor once: to be changed in place."""
    if 0 not in tensor.stride():
        return tensor
    size = [1 if step == 0 else n for n, step in zip(tensor.shape, tensor.stride(), strict=True)]
    return tensor.as_strided(size, tensor.stride(), tensor.storage_offset())


def whole(tensor: Tensor) -> Tensor:
    """All entries of the memory that a tensor is a part of."""
    storage = tensor.untyped_storage()
    size = storage.nbytes() // tensor.element_size()
    return tensor.new_empty(0).set_(storage, 0, (size,), (1,))


def multiply(weights: list[Tensor], factor: float) -> None:
    """Scale weights, or parts of them, in place."""
    with torch.no_grad():
        for weight in weights:
            unexpanded(weight).mul_(factor)


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """Tensors among arguments, also inside lists."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += tensors_in(value)
    return found


def _size(handles: list[Tensor]) -> int:
    return sum(handle.numel() for handle in handles)


def _numel(out: Any) -> int:
    return sum(tensor.numel() for tensor in tensors_in((out,)))


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.numel() > 0 and not tensor.is_meta


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
