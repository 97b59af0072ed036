"""Critical initialization by measuring: weights are scaled where the model multiplies with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init.hooks import LinearMap, Stage, is_dgl_convolution
from dgl_deepgnn.init.running import Forward, first_tensor, undisturbed

__all__ = ["mean_square", "measure"]

_aten = torch.ops.aten
# Products, and where their operands stand; an addend, if any, comes first.
_PRODUCTS = {
    _aten.mm: (0, 1),
    _aten.bmm: (0, 1),
    _aten.mv: (0, 1),
    _aten.addmm: (1, 2),
    _aten.addmm_: (1, 2),
    _aten.baddbmm: (1, 2),
    _aten.baddbmm_: (1, 2),
    _aten.addmv: (1, 2),
    _aten.convolution: (0, 1),
    _aten.embedding: (1, 0),
    _aten._trilinear: (0, 1),
}
_PLAIN = {_aten.addmm: _aten.mm, _aten.addmm_: _aten.mm, _aten.addmv: _aten.mv}
_PLAIN |= {_aten.baddbmm: _aten.bmm, _aten.baddbmm_: _aten.bmm}
# Of these, a weight comes out a weight: copies, casts, parts, and what it is composed of.
_COPIES = {_aten.clone, _aten._to_copy, _aten.index, _aten.index_select, _aten.mul, _aten.div}
_COPIES |= {_aten.cat, _aten.stack, _aten.neg, _aten.mm, _aten.bmm, _aten.repeat}


def measure(
    module: nn.Module,
    stages: Iterable[Stage],
    forward: Forward,
    arguments: tuple[object, ...] = (),
) -> None:
    """Run the model once in training mode and scale each weight where it is first multiplied.

    Parameters
    ----------
    module : nn.Module
        The model; its known weights are drawn already.
    stages : iterable of list of LinearMap
        Its known maps: their shares of a sum, and factors such as Fixup's, are kept.
    forward : callable
        ``forward(module)`` calls it.
    arguments : tuple
        What may hold graphs that the call writes to.

    Raises
    ------
    DGLError
        If a product is not finite, or no weight is multiplied with anything.
    """
    if any(map(nn.parameter.is_lazy, module.parameters())):
        with undisturbed(module, forward, arguments, training=False):
            forward(module)  # it gives every weight its shape
    mode = _Measuring(module, stages)
    handles = mode.watch_layers()
    try:
        with undisturbed(module, forward, arguments, training=True), mode:
            forward(module)
        if not mode.scaled:
            raise DGLError(
                f"No weight of the {type(module).__name__} met a feature that is not zero, so that "
                "nothing could be measured: feat must be finite and not all zero, and forward must "
                "call the model."
            )
    finally:
        for handle in handles:
            handle.remove()


def mean_square(values: Tensor) -> float:
    """Mean square of a tensor's entries, summed in double precision."""
    norm = torch.linalg.vector_norm(values.detach(), dtype=torch.float64)
    return norm.item() ** 2 / max(values.numel(), 1)


class _Measuring(TorchDispatchMode):
    """Sees every product of the run, below autograd and autocast, whoever calls it.

    A weight is known by the memory it lies in, so that a transposed weight, a third of a packed
    projection or one relation's matrix is found as well as a whole one.
    """

    def __init__(
        self,
        module: nn.Module,
        stages: Iterable[Stage],
    ) -> None:
        super().__init__()
        self.module = module
        # A source of its own: the run may draw, too, and its random state is put back.
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        # Some devices run these in one kernel that nobody can look into; their gates bound them.
        recurrent = [part for part in module.modules() if isinstance(part, nn.RNNBase)]
        left = {id(p) for part in recurrent for p in part.parameters()}
        self.parameters: dict[int, tuple[str, nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and id(parameter) not in left and _has_memory(parameter):
                self.parameters.setdefault(_memory(parameter), (name, parameter))
        self.known: dict[int, LinearMap] = {}
        for stage in stages:
            for linear in stage:
                self.known.setdefault(id(linear.weight), linear)
        self.derived: dict[int, list[Tensor]] = {}
        self.drawn: set[int] = set(self.known)
        self.scaled: list[list[Tensor]] = []
        self.done: set[tuple[object, ...]] = set()

    # --- products -------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet in _PRODUCTS:
            out = self._product(func, packet, args, kwargs)
        else:
            out = func(*args, **kwargs)
        self._follow(packet, args, out)
        return out

    def _product(self, func: Any, packet: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        for position in reversed(_PRODUCTS[packet]):
            operand = args[position]
            handles = self._handles(operand) if isinstance(operand, Tensor) else []
            if handles and operand.dim() >= 2:
                break
        else:
            return func(*args, **kwargs)
        if self._is_done(operand, handles):
            return func(*args, **kwargs)
        weight = self._draw(operand, _fan_in(packet, position, operand))
        addend, product = self._without_addend(func, packet, args, kwargs)
        square = mean_square(product)
        if not math.isfinite(square):
            raise DGLError(
                f"What the weight {self._name(operand, handles)!r} is multiplied with is not "
                "finite: pass features (and edge weights) without nan or inf."
            )
        target = self._target(weight)
        if square == 0 or target == 0:  # a branch that starts at zero, or a state that does
            return func(*args, **kwargs)
        factor = math.sqrt(target / square)
        self.done.add(_key(operand, handles))
        self._scale(handles, factor)
        if operand is not handles[0]:
            _multiply([operand], factor)  # a copy, which may be used again
        if addend is None and "out" not in kwargs:
            return product.mul_(factor)
        return func(*args, **kwargs)

    def _is_done(self, operand: Tensor, handles: list[Tensor]) -> bool:
        key = _key(operand, handles)
        if key in self.done:
            return True
        _, parameter = self.parameters.get(_memory(operand), ("", None))
        return parameter is not None and _key(parameter, [parameter]) in self.done

    def _without_addend(
        self, func: Any, packet: Any, args: tuple[Any, ...], kwargs: Any
    ) -> tuple[Tensor | None, Tensor]:
        """Addend and product, each by itself; an addend that is a bias starts at zero."""
        if packet in _PLAIN:
            addend = args[0]
            product = _PLAIN[packet](*(args[place] for place in _PRODUCTS[packet]))
        elif packet is _aten.convolution:
            addend = args[2]
            product = func(*args[:2], None, *args[3:], **kwargs)
        else:
            return None, func(*args, **kwargs)
        if addend is not None:
            self._zero_bias(addend)
        return addend, product

    def _target(self, weight: Tensor | None) -> float:
        linear = self.known.get(id(weight))
        return 1.0 if linear is None else linear.share * linear.scale**2

    def _draw(self, operand: Tensor, fan_in: int) -> nn.Parameter | None:
        """Draw the parameter that the operand is (a part of), unless it is drawn already."""
        _, parameter = self.parameters.get(_memory(operand), ("", None))
        if parameter is None:
            return None  # composed of parameters: they keep the draw that they have
        if id(parameter) not in self.drawn:
            self.drawn.add(id(parameter))
            entries = torch.randn(parameter.shape, generator=self.generator)
            parameter.detach().copy_(entries / math.sqrt(fan_in))
        return parameter

    def _zero_bias(self, addend: Tensor) -> None:
        _, bias = (
            self.parameters.get(_memory(addend), ("", None)) if _has_memory(addend) else ("", None)
        )
        if bias is not None and addend.dim() == 1 and id(bias) not in self.drawn:
            addend.zero_()

    def _scale(self, handles: list[Tensor], factor: float) -> None:
        _multiply(handles, factor)
        self.scaled.append(handles)

    # --- weights made of weights ----------------------------------------------------------------

    def _handles(self, operand: Tensor) -> list[Tensor]:
        """What to scale so that the operand is scaled: itself, or parameters it is made of."""
        if not _has_memory(operand) or not operand.is_floating_point():
            return []
        memory = _memory(operand)
        return [operand] if memory in self.parameters else self.derived.get(memory, [])

    def _follow(self, packet: Any, args: tuple[Any, ...], out: Any) -> None:
        """Note what is made of weights alone, and forget memory that is used anew."""
        inputs = [t for t in _tensors(args) if _has_memory(t)]
        results = [t for t in _tensors((out,)) if _has_memory(t)]
        inside = {_memory(t) for t in inputs}
        for result in results:
            if _memory(result) not in inside:
                self.derived.pop(_memory(result), None)
        sources = [self._handles(t) for t in inputs]
        if not results or not any(sources) or _memory(results[0]) in inside:
            return
        if packet is _aten._weight_norm_interface:
            self.derived[_memory(results[0])] = self._handles(args[1])
        elif packet in (_aten.cat, _aten.stack):
            if all(sources):
                self.derived[_memory(results[0])] = [h for source in sources for h in source]
        elif packet in _COPIES:
            others = [t for t, source in zip(inputs, sources, strict=True) if not source]
            largest = max(sources, key=lambda source: sum(h.numel() for h in source))
            small = results[0].numel() <= sum(h.numel() for h in largest)
            if small or not any(t.is_floating_point() for t in others):
                self.derived[_memory(results[0])] = largest

    def _name(self, operand: Tensor, handles: list[Tensor]) -> str:
        for tensor in (operand, *handles):
            if _memory(tensor) in self.parameters:
                return self.parameters[_memory(tensor)][0]
        return "?"

    # --- layers ---------------------------------------------------------------------------------

    def watch_layers(self) -> list[Any]:
        """Hold what layers hand on, too: they may sum over neighbours after the product."""
        handles: list[Any] = []
        for part in self.module.modules():
            if is_dgl_convolution(part) or _holds_maps(part):
                handles += self._watch(part)
        return handles

    def _watch(self, layer: nn.Module) -> list[Any]:
        state: dict[str, Any] = {}
        done = False

        def enter(module: nn.Module, args: Any) -> None:
            state["first"], state["before"] = len(self.scaled), None

        def see(features: Any) -> None:
            state["before"] = mean_square(features)

        def handed_on(output: Any) -> float:
            if state["before"] is not None:
                return state["before"]
            result = first_tensor(output)
            return 1.0 if result is None else mean_square(result)

        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            nonlocal done
            inside = self.scaled[state["first"] :]
            if done or not inside:
                return output
            done = True
            square = handed_on(output)
            bound = 2.0 if is_dgl_convolution(module) else 10.0
            if 1 / bound < square < bound or not 0 < square < math.inf:
                return output
            # If a residual connection inside is what is large, no scale helps and none is changed.
            for some in ([handle for handles in inside for handle in handles], inside[-1]):
                _multiply(some, square**-0.5)
                new = module.forward(*args, **kwargs)
                if 0.5 < handed_on(new) < 2:
                    return new
                _multiply(some, square**0.5)
            return output

        return [
            layer.register_forward_pre_hook(enter),
            layer.register_forward_hook(leave, with_kwargs=True),
            *_before_activation(layer, see),
        ]


def _holds_maps(module: nn.Module) -> bool:
    """Whether it is a layer written by hand: several weights side by side and nothing deeper."""
    if isinstance(module, (nn.Sequential, nn.ModuleList)):
        return False
    own = sum(p.dim() >= 2 for p in module.parameters(recurse=False))
    children = list(module.children())
    leaves = not any(True for child in children for _ in child.children())
    return leaves and own + sum(isinstance(child, nn.Linear) for child in children) > 1


def _multiply(weights: list[Tensor], factor: float) -> None:
    with torch.no_grad():
        for weight in weights:
            _unexpanded(weight).mul_(factor)


def _before_activation(layer: nn.Module, see: Callable[[Any], None]) -> list[Any]:
    """Show what a layer's own activation is given."""
    for name in ("activation", "_activation"):
        activation = getattr(layer, name, None)
        if isinstance(activation, nn.Module):
            return [activation.register_forward_pre_hook(lambda _, args: see(args[0]))]
        if callable(activation):
            return [_Replaced(layer, name, activation, see)]
    return []


class _Replaced:
    """A layer's function that shows what it is given, until it is removed."""

    def __init__(
        self, layer: nn.Module, name: str, function: Any, see: Callable[[Any], None]
    ) -> None:
        def seen(features: Any) -> Any:
            see(features)
            return function(features)

        self.layer, self.name, self.function = layer, name, function
        setattr(layer, name, seen)

    def remove(self) -> None:
        """Put the function back."""
        setattr(self.layer, self.name, self.function)


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.numel() > 0 and not tensor.is_meta


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _key(operand: Tensor, handles: list[Tensor]) -> tuple[object, ...]:
    """Names a weight, or the part of one, and whether it is multiplied as it is."""
    places = ((_memory(h), h.storage_offset(), _unexpanded(h).numel()) for h in handles)
    return (_memory(operand) == _memory(handles[0]), *places)


def _unexpanded(tensor: Tensor) -> Tensor:
    """Entries of an expanded tensor once: to be changed in place."""
    if 0 not in tensor.stride():
        return tensor
    size = [
        1 if stride == 0 else n for n, stride in zip(tensor.shape, tensor.stride(), strict=True)
    ]
    return tensor.as_strided(size, tensor.stride(), tensor.storage_offset())


def _fan_in(packet: Any, position: int, operand: Tensor) -> int:
    if packet is _aten.embedding:
        return 1
    if packet in (_aten.convolution, _aten._trilinear):
        return max(operand[0].numel(), 1)
    return operand.shape[-2] if position == _PRODUCTS[packet][1] else operand.shape[-1]


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found
