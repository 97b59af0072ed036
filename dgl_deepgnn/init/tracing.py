"""What stands between the weights of a model, read off the graph that autograd builds of one run.

Every tensor of the run knows what it was made of, DGL's kernels included. From the output
backwards, what is met between one weight and the weight that multiplies its product next is the
activation of the first and the input of the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init.activation import Activation, critical_point
from dgl_deepgnn.init.post_norm import is_norm, shares_of_branches
from dgl_deepgnn.init.running import tensors_of

__all__ = ["Behind", "Trace", "is_own_activation", "trace"]

_aten = torch.ops.aten
_PRODUCTS = {f"{name}Backward0" for name in ("Mm", "Addmm", "Bmm", "Baddbmm", "Mv", "Addmv")}
_PRODUCTS |= {"LinearBackward0", "ConvolutionBackward0", "TrilinearBackward0"}
_ATTRIBUTES = ("activation", "_activation", "act", "act_fn", "activation_fn", "nonlinearity")
# Nodes of activations; the numbers that one was called with are kept in its node.
_ACTIVATIONS: dict[str, Callable[[Any], Activation]] = {
    "ReluBackward0": lambda node: torch.relu,
    "LeakyReluBackward0": lambda node: partial(
        _aten.leaky_relu, negative_slope=node._saved_negative_slope
    ),
    "EluBackward0": lambda node: partial(
        _aten.elu,
        alpha=node._saved_alpha,
        scale=node._saved_scale,
        input_scale=node._saved_input_scale,
    ),
    "CeluBackward0": lambda node: partial(_aten.celu, alpha=node._saved_alpha),
    "GeluBackward0": lambda node: partial(_aten.gelu, approximate=node._saved_approximate),
    "SiluBackward0": lambda node: _aten.silu,
    "MishBackward0": lambda node: _aten.mish,
    "TanhBackward0": lambda node: torch.tanh,
    "HardtanhBackward0": lambda node: partial(
        _aten.hardtanh, min_val=node._saved_min_val, max_val=node._saved_max_val
    ),
    "ClampBackward1": lambda node: partial(torch.clamp, min=node._saved_min, max=node._saved_max),
    "ClampMinBackward0": lambda node: partial(torch.clamp, min=node._saved_min),
    "HardswishBackward0": lambda node: _aten.hardswish,
    "SoftplusBackward0": lambda node: partial(
        _aten.softplus, beta=node._saved_beta, threshold=node._saved_threshold
    ),
    "SigmoidBackward0": lambda node: torch.sigmoid,
    "RreluWithNoiseBackward0": lambda node: partial(
        _aten.leaky_relu, negative_slope=(node._saved_lower + node._saved_upper) / 2
    ),
    "SinBackward0": lambda node: torch.sin,
    "AbsBackward0": lambda node: torch.abs,
    "ErfBackward0": lambda node: torch.erf,
}
_UNKNOWN: tuple[str, ...] = (
    "Exp",
    "Pow",
    "Log",
    "LogSigmoid",
    "Hardsigmoid",
    "Softshrink",
    "Hardshrink",
    "Clamp",
)
_UNKNOWN += ("Maximum", "Minimum", "Threshold", "Glu", "Cos", "Atan")


@dataclass(frozen=True)
class Behind:
    """What a product goes through before another weight, or the caller, gets it.

    Parameters
    ----------
    activation : Activation or None
        The first one that it enters; None for none.
    output : bool
        Whether no weight comes behind it.
    gate : bool
        Whether it only decides how much of something else gets through: a sigmoid in front
        of a product (then it is the activation), a softmax.
    normed : bool
        Whether a normalization layer stands in front of the activation.
    unknown : str
        Something that is no linear operation and no known activation, if there is any.
    """

    activation: Activation | None = None
    output: bool = False
    gate: bool = False
    normed: bool = False
    unknown: str = ""
    multiplied: bool = field(default=False, repr=False)


@dataclass(frozen=True)
class Trace:
    """What stands behind each weight, and in front.

    Parameters
    ----------
    behind : dict of int to list of Behind
        By the identity of the parameter.
    before : dict of int to list of Behind
        The same things, by the identity of the parameter that comes next: what became of the
        products that it multiplies; nothing for weights that only the input meets.
    shares : dict of int to float
        Mean square, in units of the usual one, that the products of a weight are to have at the end
        of a residual branch whose sum is normalized.
    """

    behind: dict[int, list[Behind]]
    before: dict[int, list[Behind]]
    shares: dict[int, float]


class _Seen(torch.autograd.Function):
    """Stands in the graph for an activation, whatever that is made of."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, output: Tensor, activation: Activation) -> Tensor:
        """Hand on the output."""
        ctx.activation = activation
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Nobody asks for it."""
        raise NotImplementedError


def trace(module: nn.Module, forward: Callable[[Any], object], feat: Tensor) -> Trace:
    """Run a model as it is called, on features that it hands to `forward`.

    Parameters
    ----------
    module : nn.Module
        The model. It runs in the mode that it is in.
    forward : callable
        ``forward(feat)`` calls it.
    feat : Tensor
        Features, or whole numbers that an embedding looks up.

    Returns
    -------
    Trace
        Weights that were not met, or by no product, are not in it.
    """
    parameters = [p for p in module.parameters() if p.is_floating_point()]
    required = [p.requires_grad for p in parameters]
    # What is kept for a backward pass is not needed: a large graph would fill the memory.
    drop = torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing)
    with torch.enable_grad(), _marked(module), drop:
        try:
            for parameter in parameters:
                parameter.requires_grad_()
            if feat.is_floating_point():
                feat = feat.detach().requires_grad_().clone()  # a leaf cannot be changed in place
            outputs = tensors_of(forward(feat))
        finally:
            for parameter, before in zip(parameters, required, strict=True):
                parameter.requires_grad_(before)
    if not outputs:
        raise DGLError("it returns no features")
    return _read([out.grad_fn for out in outputs], {id(p) for p in parameters})


@contextmanager
def _marked(module: nn.Module) -> Iterator[None]:
    """Let activations that are modules or attributes show themselves in the graph."""
    handles: list[Any] = []

    def leave(part: Any, args: Any, output: Any) -> Any:
        if len(args) == 1 and isinstance(output, Tensor) and args[0].shape == output.shape:
            return _Seen.apply(args[0], output.detach(), part)
        return output

    replaced: list[tuple[nn.Module, str, Any]] = []
    for part in module.modules():
        if is_own_activation(part) or isinstance(part, (nn.PReLU, nn.Softsign, nn.Tanhshrink)):
            handles.append(part.register_forward_hook(leave))
        for name in _ATTRIBUTES:
            function = getattr(part, name, None)
            if callable(function) and not isinstance(function, nn.Module) and _known(function):
                replaced.append((part, name, function))
    for part, name, function in replaced:
        setattr(part, name, partial(_shown, function))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for part, name, function in replaced:
            setattr(part, name, function)


def _shown(function: Activation, *args: Any, **kwargs: Any) -> Any:
    output = function(*args, **kwargs)
    if kwargs or len(args) != 1:  # an attribute of that name may be anything
        return output
    return _Seen.apply(args[0], output.detach(), function)


def is_own_activation(module: nn.Module) -> bool:
    """Whether a user's module without weights is a function of each entry by itself."""
    theirs = type(module).__module__.split(".")[0] not in ("torch", "dgl", "dgl_deepgnn")
    if not theirs or any(True for _ in (*module.parameters(), *module.children())):
        return False
    return _known(module)


def _known(activation: Any) -> bool:
    try:
        critical_point(activation)
    except DGLError:
        return False
    return True


def _read(roots: list[Any], parameters: set[int]) -> Trace:
    order = _children_first(roots)
    pure: dict[Any, frozenset[int]] = {}  # nodes that are made of weights alone, and of which
    for node in order:
        variable = getattr(node, "variable", None)
        if variable is not None:
            if id(variable) in parameters:
                pure[node] = frozenset([id(variable)])
        elif node.name() != "EmbeddingBackward0":
            inputs = _inputs(node)
            if inputs and all(part in pure for part in inputs):
                pure[node] = frozenset().union(*(pure[part] for part in inputs))

    def weights_of(node: Any) -> frozenset[int] | None:
        if node in pure:
            return None
        parts = _inputs(node) if node.name() in _PRODUCTS else []
        return frozenset().union(*(pure[part] for part in parts if part in pure))

    behind: dict[int, list[Behind]] = {}
    before: dict[int, list[Behind]] = {}
    activations: dict[Any, Activation | None] = {}
    start = Behind(output=True)
    todo: list[tuple[Any, Behind, frozenset[int]]] = [(root, start, frozenset()) for root in roots]
    visited = set()
    while todo:
        step = todo.pop()
        if step[0] is None or step in visited or step[0] in pure:
            continue
        visited.add(step)
        node, state, consumers = step
        inputs = _inputs(node)
        if weights := weights_of(node):
            # An addend that is a bias is pure, too, but nobody asks for it.
            for weight in weights:
                _append(behind, weight, state)
            for weight in consumers:
                _append(before, weight, state)
            todo += [(part, Behind(), weights) for part in inputs]
        else:
            if node not in activations:
                activations[node] = _activation(node)
            features = sum(part not in pure for part in inputs)
            passed = _pass(node, activations[node], state, features)
            todo += [(part, passed, consumers) for part in inputs]
    return Trace(behind, before, shares_of_branches(roots, order, weights_of))


def _activation(node: Any) -> Activation | None:
    name = node.name()
    if name == "PreluKernelBackward0":
        slopes = _inputs(node)[-1]
        while not hasattr(slopes, "variable") and len(_inputs(slopes)) == 1:  # a view of them
            (slopes,) = _inputs(slopes)
        square = slopes.variable.detach().square().mean() if hasattr(slopes, "variable") else 0.0
        slope = float(square) ** 0.5
        return partial(_aten.leaky_relu, negative_slope=slope)
    if name in _ACTIVATIONS:
        return _ACTIVATIONS[name](node)
    return getattr(node, "activation", None)  # of _Seen


def _pass(node: Any, activation: Activation | None, state: Behind, features: int) -> Behind:
    """What is met from the output backwards: what is nearest to the weight counts."""
    name = node.name()
    if state.gate:
        return state
    if "Softmax" in name:
        return replace(state, gate=True)
    if activation is torch.sigmoid and state.multiplied:
        return replace(state, gate=True, activation=activation)
    if activation is not None:
        return Behind(activation, state.output, multiplied=state.multiplied)
    if is_norm(node):
        return replace(state, normed=True)
    if features > 1 and not name.startswith(("Add", "Sub", "Cat", "Stack")):
        return replace(state, multiplied=True)
    kind = name.removesuffix("Backward0").removesuffix("Backward1")
    return replace(state, unknown=kind.lower()) if kind in _UNKNOWN else state


def _append(places: dict[int, list[Behind]], weight: int, state: Behind) -> None:
    if state not in places.setdefault(weight, []):
        places[weight].append(state)


def _inputs(node: Any) -> list[Any]:
    return [part for part, _ in node.next_functions if part is not None]


def _children_first(roots: list[Any]) -> list[Any]:
    """All nodes, each behind its inputs."""
    order: list[Any] = []
    entered = set()
    todo = [(root, False) for root in roots]
    while todo:
        node, left = todo.pop()
        if left:
            order.append(node)
        elif node is not None and node not in entered:
            entered.add(node)
            todo.append((node, True))
            todo += [(part, False) for part in _inputs(node)]
    return order
