"""Critical initialization by measuring: weights are scaled where the model multiplies with them."""

from __future__ import annotations

import math
import warnings
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
from dgl_deepgnn.init.running import Forward, first_tensor, undisturbed
from dgl_deepgnn.init.statistics import on_other_features, set_statistics, tracking
from dgl_deepgnn.init.tracing import is_own_activation

__all__ = ["OF_BATCH_NORM", "mean_square", "measure"]

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
_SMOOTH = {
    packet: getattr(_aten, name)
    for name in ("gelu", "silu", "mish", "elu", "celu", "tanh", "hardtanh", "hardswish")
    for packet in (getattr(_aten, name), getattr(_aten, f"{name}_", None))
}
_ANY = CriticalPoint(1.0, 0.0, None)
_LEAST, _MOST = 1e-4, 1e4  # mean square of the output; unscaled residual sums have that of depth
_APART = 30.0  # of training and evaluation mode
OF_BATCH_NORM = (
    "Batch normalization in every layer multiplies what differs between the nodes, and with it "
    "what differs from the batches that its statistics are of, whatever the scale of the weights. "
    "Use LayerNorm, or residual connections around the layers."
)
_SMALL = 0.1  # for an activation whose only fixed point is 0: so near it that tanh is 1 % off


def measure(
    module: nn.Module,
    stages: Iterable[Stage],
    forward: Forward,
    arguments: tuple[object, ...] = (),
) -> None:
    """Run the model in training mode and scale each weight where it is first multiplied.

    Once, if its activations are homogeneous. Those that ask for a mean square of their own are
    seen only after the weights in front of them are scaled: then it runs once more. Batch
    normalization gets the running statistics of these features. At last it runs in evaluation
    mode: where that is far from training mode, a warning says so.

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

    def run(training: bool) -> float:
        with undisturbed(module, forward, arguments, training=training):
            out = first_tensor(forward(module))
        return math.nan if out is None else mean_square(out)

    mode = _Measuring(module, stages)
    handles = mode.watch_layers()
    try:
        for _ in range(2):
            with mode:
                square = run(training=True)
            if not mode.scaled:
                raise DGLError(
                    f"No weight of the {type(module).__name__} met a feature that is not zero, so "
                    "that nothing could be measured: feat must be finite and not all zero, and "
                    "forward must call the model."
                )
            last = mode.scaled[-1]
            if not mode.ask_again():
                break
    finally:
        for handle in handles:
            handle.remove()
    if last.key not in mode.points:
        square = _scale_output(last, square, run)
    norms = tracking(module)
    if norms:
        set_statistics(norms, lambda: run(training=True))
    _report(module, square, run, norms)


def _scale_output(last: _Scaled, square: float, run: Callable[[bool], float]) -> float:
    """Bring the output to mean square one by the last weight, if it depends on that alone.

    A mean over heads, or propagation behind the last weight, takes something away.
    """
    if not 0 < square < math.inf or 0.5 < square < 2:
        return square
    multiply(last.handles, square**-0.5)
    new = run(True)
    if 0.5 < new < 2:
        return new
    multiply(last.handles, square**0.5)
    return square


def _report(
    module: nn.Module,
    square: float,
    run: Callable[[bool], float],
    norms: list[nn.modules.batchnorm._BatchNorm],
) -> None:
    """Say so where the output is far from order one, in training or in evaluation mode."""
    if math.isnan(square):
        return  # it returns no features
    name, see = type(module).__name__, "dgl_deepgnn.diagnose(model, graph, feat)"
    if not _LEAST < square < _MOST:
        warnings.warn(
            f"Measured, the {name} still ends at a mean square of {square:.2g}: "
            "something in it scales the features where no weight is multiplied with them, such as "
            f"a gate, or an output that starts at zero. Look at it layer by layer: {see}.",
            stacklevel=4,
        )
        return
    with on_other_features(norms):
        evaluated = run(False)
    if 1 / _APART < evaluated / square < _APART:
        return
    ends = (
        f"Measured, the {name} ends at a mean square of {square:.2g} in training mode and of "
        f"{evaluated:.2g} in evaluation mode"
    )
    if norms:
        warnings.warn(
            f"{ends}, on other features than its statistics are of. {OF_BATCH_NORM}", stacklevel=4
        )
    else:
        warnings.warn(
            f"{ends}: dropout adds to the mean square in every layer, and one scale cannot serve "
            f"both modes. Drop less, or in fewer layers, or normalize them. Layer by layer: {see}.",
            stacklevel=4,
        )


def mean_square(values: Tensor) -> float:
    """Mean square of a tensor's entries, summed in double precision."""
    norm = torch.linalg.vector_norm(values.detach(), dtype=torch.float64)
    return norm.item() ** 2 / max(values.numel(), 1)


@dataclass(frozen=True)
class _Scaled:
    """A weight that was scaled."""

    key: tuple[object, ...]
    handles: list[Tensor]


class _Measuring(TorchDispatchMode):
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
        self.gates = {id(p) for cell in cells for p in cell.parameters()}
        self.points: dict[tuple[object, ...], CriticalPoint] = {}
        self._forget()

    def _forget(self) -> None:
        self.scaled: list[_Scaled] = []
        self.done: set[tuple[object, ...]] = set()
        self.pending: list[tuple[object, ...]] = []
        self.seen: dict[tuple[object, ...], Activation] = {}

    def ask_again(self) -> bool:
        """Whether activations asked for another mean square than their weights were scaled to."""
        points = {key: _critical_point(activation) for key, activation in self.seen.items()}
        self.points = {key: point for key, point in points.items() if point.mean_square is not None}
        if self.points:
            self._forget()
        return bool(self.points)

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
        if all(self.weights.handles(args[place]) for place in _PRODUCTS[packet]):
            return func(*args, **kwargs)  # a weight composed of others: no features yet
        key, weight = self.weights.key(operand), self.weights.parameter(operand)
        if key in self.done or (weight is not None and self.weights.key(weight) in self.done):
            return func(*args, **kwargs)
        if weight is not None:  # others are composed of weights: they keep the draw that they have
            self._draw(weight, _fan_in(packet, position, operand))
        point = self.points.get(key, _ANY)
        if id(weight) in self.bias:  # one that the layer adds later
            self._draw_bias(self.bias[id(weight)], point)
        addend, product = self._without_addend(func, packet, args, kwargs, point)
        square = mean_square(product)
        if not math.isfinite(square):
            raise DGLError(
                f"What the weight {self.weights.name(operand)!r} is multiplied with is not "
                "finite: pass features (and edge weights) without nan or inf."
            )
        target = _level(point) - point.bias_variance
        target *= self.share.get(id(weight), 1.0)
        if square == 0 or target == 0:  # a branch that starts at zero, or a state that does
            return func(*args, **kwargs)
        factor = math.sqrt(target / square)
        self.done.add(key)
        if id(weight) not in self.gates:
            self.pending.append(key)
        self.scaled.append(_Scaled(key, handles))
        multiply(handles, factor)
        if weight is None:
            multiply([whole(operand)], factor)  # a copy: other parts of it are multiplied later
        if addend is None and "out" not in kwargs:
            return product.mul_(factor)
        return func(*args, **kwargs)

    def _without_addend(
        self, func: Any, packet: Any, args: tuple[Any, ...], kwargs: Any, point: CriticalPoint
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
            self._draw_bias(addend, point)
        return addend, product

    def _draw(self, weight: nn.Parameter, fan_in: int) -> None:
        """Draw a weight that no hook knows, once."""
        if id(weight) not in self.drawn:
            self.drawn.add(id(weight))
            entries = torch.randn(weight.shape, generator=self.generator)
            weight.detach().copy_(entries / math.sqrt(fan_in))

    def _draw_bias(self, bias: Tensor, point: CriticalPoint) -> None:
        entries = torch.randn(bias.shape, generator=self.generator)
        bias.detach().copy_(math.sqrt(point.bias_variance) * entries)

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

        def handed_on(output: Any) -> float:
            result = first_tensor(output)
            square = 1.0 if result is None else mean_square(result)
            if before is not None:
                square = before
            return square / _level(self.points.get(self.scaled[-1].key, _ANY))

        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            inside = self.scaled[first:]
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


def _level(point: CriticalPoint) -> float:
    """Mean square in front of an activation."""
    return 1.0 if point.mean_square is None else point.mean_square or _SMALL


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
