"""Every product of a model's run: the weight in it is scaled so that the product has its target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init.activation import Activation, CriticalPoint, critical_point
from dgl_deepgnn.init.hooks import Stage, is_dgl_convolution
from dgl_deepgnn.init.memory import Weights, multiply, whole
from dgl_deepgnn.init.reused import Reused
from dgl_deepgnn.init.running import first_tensor, mean_square
from dgl_deepgnn.init.tracing import Behind, Trace, is_own_activation

__all__ = ["Products", "Scaled"]

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
_HOMOGENEOUS = {_aten.relu, _aten.relu_, _aten.leaky_relu, _aten.leaky_relu_, _aten._prelu_kernel}
_HOMOGENEOUS |= {_aten.rrelu_with_noise, _aten.rrelu_with_noise_}
_NORMS = {_aten.native_layer_norm, _aten.native_batch_norm, _aten.native_group_norm}
_NORMS |= {_aten.cudnn_batch_norm, _aten.rsqrt}  # RMSNorm
_SIGMOIDS = {_aten.sigmoid, _aten.sigmoid_}
_SMOOTH = {
    packet: getattr(_aten, name)
    for name in ("gelu", "silu", "mish", "elu", "celu", "tanh", "hardtanh", "hardswish")
    for packet in (getattr(_aten, name), getattr(_aten, f"{name}_", None))
}
_ANY = CriticalPoint(1.0, 0.0, None)
# A gate's sigmoid of features with a mean square around one lets more through of larger features:
# a deviation grows from layer to layer. Near zero it is one half of whatever there is; nodes with
# many neighbours may have features ten times as large as others.
_GATE = CriticalPoint(1.0, 0.0, 0.01)
_SMALL = 0.1  # for an activation whose only fixed point is 0: so near it that tanh is 1 % off


@dataclass(frozen=True)
class Scaled:
    """A weight that was scaled."""

    key: tuple[object, ...]
    handles: list[Tensor]


class Products(TorchDispatchMode):
    """Sees every product of the run, below autograd and autocast, whoever calls it."""

    def __init__(self, module: nn.Module, stages: Iterable[Stage]) -> None:
        super().__init__()
        self.module, self.weights = module, Weights(module)
        # A source of its own: the run may draw, too, and its random state is put back.
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        self.share: dict[int, float] = {}
        self.bias: dict[int, Tensor] = {}
        for linear in (linear for stage in stages for linear in stage):
            self.share.setdefault(id(linear.weight), linear.share * linear.scale**2)
            if linear.bias is not None and linear.bias.requires_grad:
                self.bias[id(linear.weight)] = linear.bias
        self.drawn = set(self.share)
        cells = [part for part in module.modules() if isinstance(part, nn.RNNCellBase)]
        self.cells = {id(p) for cell in cells for p in cell.parameters()}
        self.points: dict[tuple[object, ...], CriticalPoint] = {}
        self.small: dict[tuple[object, ...], float] = {}  # ends of branches
        self.reused = Reused()
        self.forget()

    def forget(self) -> None:
        """Be ready for another run, which scales every weight anew."""
        self.scaled: list[Scaled] = []
        self.reused.squares = {}
        self.done: set[tuple[object, ...]] = set()
        self.pending: list[tuple[object, ...]] = []
        self.seen: dict[tuple[object, ...], Activation] = {}
        self.sigmoid = self.normed = False

    def ask_again(self, look: Callable[[], Trace]) -> bool:
        """Whether the model asks for another mean square than the weights were scaled to.

        `look` traces the model, if there are sigmoids, which may be gates, or normalizations, in
        front of which residual branches may be added.
        """
        points = {key: _critical_point(activation) for key, activation in self.seen.items()}
        trace = look() if self.sigmoid or self.normed else Trace({}, {}, {})
        for scaled in self.scaled:
            weight = id(self.weights.parameter(scaled.handles[0]))
            if weight not in self.cells and _only_gates(trace.behind.get(weight, [])):
                points[scaled.key] = _GATE
            if weight in trace.shares:
                self.small[scaled.key] = trace.shares[weight]
        self.points = {key: point for key, point in points.items() if point.mean_square is not None}
        return bool(self.points or self.small)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet in _SMOOTH:
            plain, rest = _SMOOTH[packet], args[1:]
            self.activate(lambda z: plain(z, *rest, **kwargs))
        elif packet in _HOMOGENEOUS:
            self.activate(None)
        elif packet in _SIGMOIDS:
            self.sigmoid = True
        elif packet in _NORMS:
            self.normed = True
        if packet in _PRODUCTS:
            out = self._product(func, packet, args, kwargs)
        else:
            out = func(*args, **kwargs)
        self.weights.follow(packet, args, out)
        return out

    # --- products -------------------------------------------------------------------------------

    def _product(self, func: Any, packet: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        if all(self.weights.handles(args[position]) for position in _PRODUCTS[packet]):
            return func(*args, **kwargs)  # weights composed of others: no features yet
        for position in reversed(_PRODUCTS[packet]):
            operand = args[position]
            handles = self.weights.handles(operand)
            if handles and operand.dim() >= 2 and operand.is_floating_point():
                break
        else:
            return func(*args, **kwargs)
        key, weight = self.weights.key(operand), self.weights.parameter(operand)
        if key in self.done or (weight is not None and self.weights.key(weight) in self.done):
            out = func(*args, **kwargs)
            self.reused.see(key, out)
            return out
        if weight is not None:  # others are composed of weights: they keep the draw that they have
            self._draw(weight, _fan_in(packet, position, operand))
        if id(weight) in self.bias:  # one that the layer adds later
            self._draw_bias(self.bias[id(weight)], self._bias_variance(key))
        addend, product = self._without_addend(func, packet, args, kwargs, key)
        square = mean_square(product)
        if not math.isfinite(square):
            raise DGLError(
                f"What the weight {self.weights.name(operand)!r} is multiplied with is not "
                "finite: pass features (and edge weights) without nan or inf."
            )
        target = self._level(key) - self._bias_variance(key)
        target *= self.share.get(id(weight), 1.0) * self.reused.start(key)
        if square == 0 or target == 0:  # a branch that starts at zero, or a state that does
            return func(*args, **kwargs)
        factor = math.sqrt(target / square)
        self.done.add(key)
        self.reused.squares[key] = [target]
        if id(weight) not in self.cells:
            self.pending.append(key)
        self.scaled.append(Scaled(key, handles))
        multiply(handles, factor)
        if weight is None:
            multiply([whole(operand)], factor)  # a copy: other parts of it are multiplied later
        if addend is None and "out" not in kwargs:
            return product.mul_(factor)
        return func(*args, **kwargs)

    def _without_addend(
        self,
        func: Any,
        packet: Any,
        args: tuple[Any, ...],
        kwargs: Any,
        key: tuple[object, ...],
    ) -> tuple[Tensor | None, Tensor]:
        """Addend and product, each by itself; an addend that is a bias is drawn."""
        if packet in _PLAIN:
            addend = args[0]
            product = _PLAIN[packet](*(args[place] for place in _PRODUCTS[packet]))
        elif packet is _aten.convolution:
            addend = args[2]
            product = func(*args[:2], None, *args[3:], **kwargs)
        else:
            return None, func(*args, **kwargs)
        if addend is not None and addend.dim() == 1 and self.weights.parameter(addend) is not None:
            self._draw_bias(addend, self._bias_variance(key))
        return addend, product

    def _draw(self, weight: nn.Parameter, fan_in: int) -> None:
        """Draw a weight that no hook knows, once."""
        if id(weight) not in self.drawn:
            self.drawn.add(id(weight))
            entries = torch.randn(weight.shape, generator=self.generator)
            weight.detach().copy_(entries / math.sqrt(fan_in))

    def _draw_bias(self, bias: Tensor, variance: float) -> None:
        entries = torch.randn(bias.shape, generator=self.generator)
        bias.detach().copy_(math.sqrt(variance) * entries)

    def _level(self, key: tuple[object, ...]) -> float:
        """Mean square that a product and its bias are to have in front of an activation."""
        square = self.points.get(key, _ANY).mean_square
        return (1.0 if square is None else square or _SMALL) * self.small.get(key, 1.0)

    def _bias_variance(self, key: tuple[object, ...]) -> float:
        return self.points.get(key, _ANY).bias_variance * self.small.get(key, 1.0)

    # --- activations ----------------------------------------------------------------------------

    def activate(self, activation: Activation | None) -> None:
        """Note an activation, None for a homogeneous one: weights before it are to suit it."""
        if activation is not None:
            self.seen.update(dict.fromkeys(self.pending, activation))
        self.pending = []

    # --- layers ---------------------------------------------------------------------------------

    def watch_layers(self) -> list[Any]:
        """Hold what layers hand on, too: they may sum over neighbours after the product."""
        handles: list[Any] = []
        for part in self.module.modules():
            if is_dgl_convolution(part) or _holds_maps(part):
                handles += self._watch(part)
            elif is_own_activation(part):
                handles.append(part.register_forward_pre_hook(self._enter_activation))
        return handles

    def _enter_activation(self, module: nn.Module, args: Any) -> None:
        self.activate(module.forward)  # without its hooks

    def _watch(self, layer: nn.Module) -> list[Any]:
        first, before = 0, None

        def enter(module: nn.Module, args: Any) -> None:
            nonlocal first, before
            first, before = len(self.scaled), None

        def see(features: Any, activation: Activation) -> None:
            nonlocal before
            before = mean_square(features)
            self.pending += [weight.key for weight in self.scaled[first:][-1:]]
            self.activate(activation)

        def scaled_inside() -> list[Scaled]:
            inside = self.scaled[first:]
            return [weight for weight in inside if self.points.get(weight.key) is not _GATE]

        def handed_on(output: Any) -> float:
            result = first_tensor(output)
            square = 1.0 if result is None else mean_square(result)
            if before is not None:
                square = before
            key = scaled_inside()[-1].key
            return square / (self._level(key) * self.reused.start(key))

        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            inside = scaled_inside()
            if not inside:
                return output
            if before is None:
                self.pending.append(inside[-1].key)
            square = handed_on(output)
            bound = 2.0 if is_dgl_convolution(module) else 10.0
            if 1 / bound < square < bound or not 0 < square < math.inf:
                return output
            # If a residual connection inside is what is large, no scale helps and none is changed.
            for some in (inside, inside[-1:]):
                handles = [handle for weight in some for handle in weight.handles]
                multiply(handles, square**-0.5)
                with self.reused.looking_away():
                    new = module.forward(*args, **kwargs)
                if 0.5 < handed_on(new) < 2:
                    return new
                multiply(handles, square**0.5)
            return output

        return [
            layer.register_forward_pre_hook(enter),
            layer.register_forward_hook(leave, with_kwargs=True),
            *_before_activation(layer, see),
        ]


def _critical_point(activation: Activation) -> CriticalPoint:
    try:
        return critical_point(activation)
    except DGLError:
        return _ANY  # it has none, such as a gate: any mean square of order one will do


def _only_gates(places: list[Behind]) -> bool:
    """Whether products only enter the sigmoids of gates."""
    return bool(places) and all(p.gate and p.activation is not None for p in places)


def _fan_in(packet: Any, position: int, operand: Tensor) -> int:
    if packet is _aten.embedding:
        return 1
    if packet in (_aten.convolution, _aten._trilinear):
        return max(operand[0].numel(), 1)
    return operand.shape[-2] if position == _PRODUCTS[packet][1] else operand.shape[-1]


def _holds_maps(module: nn.Module) -> bool:
    """Whether it is a layer written by hand: several weights side by side and nothing deeper."""
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.RNNCellBase)):
        return False
    own = sum(p.dim() >= 2 for p in module.parameters(recurse=False))
    children = list(module.children())
    leaves = not any(True for child in children for _ in child.children())
    return leaves and own + sum(isinstance(child, nn.Linear) for child in children) > 1


def _before_activation(layer: nn.Module, see: Callable[[Any, Activation], None]) -> list[Any]:
    """Show what a layer's own activation is given."""
    for name in ("activation", "_activation"):
        activation = getattr(layer, name, None)
        if isinstance(activation, nn.Module):
            hook = lambda module, args: see(args[0], module)  # noqa: E731
            return [activation.register_forward_pre_hook(hook)]
        if callable(activation):
            return [_Replaced(layer, name, activation, see)]
    return []


class _Replaced:
    """A layer's function that shows what it is given, until it is removed."""

    def __init__(
        self, layer: nn.Module, name: str, function: Any, see: Callable[[Any, Activation], None]
    ) -> None:
        def seen(features: Any) -> Any:
            see(features, function)
            return function(features)

        self.layer, self.name, self.function = layer, name, function
        setattr(layer, name, seen)

    def remove(self) -> None:
        """Put the function back."""
        setattr(self.layer, self.name, self.function)
