"""What an initialization has to know of a module: its linear maps, in forward order.

A hook describes one module class; every scheme then works on every described class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, as_graph
from dgl_deepgnn.operator.growth import growth_by_layer, spectral_radius
from dgl_deepgnn.operator.matrix import Norm
from dgl_deepgnn.registry import load_plugins

__all__ = [
    "GraphContext",
    "LinearMap",
    "Stage",
    "UnknownModuleError",
    "WithoutGraph",
    "collect_stages",
    "register_initializer",
]


@dataclass(frozen=True)
class LinearMap:
    r"""One weight matrix and the facts an initialization needs.

    Parameters
    ----------
    owner : nn.Module
        The module whose output the map produces.
    weight : Tensor
        The parameter.
    fan_in, fan_out : int
        Widths of its input and output.
    bias : Tensor, optional
        The bias added to the product; every scheme starts it at zero.
    spectral_radius : float
        Spectral radius of the aggregation that is multiplied with this weight and was not
        divided out; 1 where there is none.
    share : float
        Share of the critical variance, where several maps add up (GraphSAGE: 1/2 each).
    glorot_gain : float
        Gain of the Glorot initialization that DGL's own layer has here by default.
    scale : float
        Factor on the standard deviation: 0 for the last map of a fixup branch.
    """

    owner: nn.Module
    weight: Tensor
    fan_in: int
    fan_out: int
    bias: Tensor | None = None
    spectral_radius: float = 1.0
    share: float = 1.0
    glorot_gain: float = 1.0
    scale: float = 1.0


T = TypeVar("T")

_ORDER = "The module comes first and the graph after it, as in critical_(model, graph)."

Stage = list[LinearMap]
"""Linear maps that act side by side; the stages of a module follow one another."""


class UnknownModuleError(DGLError):
    """A module that no hook describes; the message says where in the tree it is.

    A hook raises it for a configuration that it does not cover.

    Parameters
    ----------
    module : nn.Module
        The module in question.
    reason : str
        One or more sentences: what is wrong and what to do.
    root : nn.Module, optional
        The tree to name its path in.
    """

    page = "docs/hooks.md"

    def __init__(self, module: nn.Module, reason: str, root: nn.Module | None = None) -> None:
        root = root or module
        path = next((name for name, part in root.named_modules() if part is module), "")
        where = f"{type(root).__name__}.{path}".rstrip(".")
        super().__init__(f"{reason} It is at {where}; strict=False leaves it alone.")
        self.module, self.reason = module, reason


@dataclass(frozen=True)
class GraphContext:
    """What an initialization is computed for.

    Parameters
    ----------
    graph : DGLGraph, optional
        The graph, if the caller gave one.
    edge_weight : Tensor, optional
        Weights of its edges, shape (E,).
    strict : bool
        Whether a module with parameters but without a hook is an error; otherwise it is left
        alone, with everything in it.
    into_unknown : bool
        Whether, of what is left alone, the modules inside are taken all the same.
    depth : int, optional
        Number of aggregations one after the other: then the graph's growth in each of them
        takes the place of its spectral radius (they differ where the graph is not strongly
        connected).
    """

    graph: AnyGraph | None = None
    edge_weight: Tensor | None = None
    strict: bool = True
    depth: int | None = None
    into_unknown: bool = False
    left: list[nn.Module] = field(default_factory=list, init=False, repr=False)
    _radii: dict[tuple[Norm, float], Tensor] = field(default_factory=dict, init=False, repr=False)
    _made: dict[object, Any] = field(default_factory=dict, init=False, repr=False)
    _asked: list[Norm] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.graph, nn.Module):
            raise DGLError(f"{_ORDER} Where the graph belongs stands a {_kind(self.graph)}.")
        if self.graph is not None:
            object.__setattr__(self, "graph", as_graph(self.graph))
        if self.edge_weight is not None and self.graph is None:
            raise DGLError("edge_weight was given without the graph whose edges it belongs to.")

    def spectral_radius(self, module: nn.Module, norm: Norm, self_weight: float = 0.0) -> float:
        r"""Spectral radius of the aggregation `norm` on the graph (of a batch, the largest).

        It is to be asked for once for every aggregation, in their order.

        Without a graph it is 1 for the normalised aggregations, which holds on every
        undirected graph. `self_weight` times the identity is added to the aggregation.

        Raises
        ------
        DGLError
            If there is no graph and the aggregation is a sum, or the graph has no directed cycle.
        """
        if self.graph is None:
            if norm == "none":
                raise DGLError(
                    f"{type(module).__name__} sums over neighbours: its critical scale depends on "
                    "the graph's spectral radius. Pass the graph: critical_(module, graph)."
                )
            return 1.0 + self_weight
        self._asked.append(norm)
        # Deep networks ask for the same aggregation in every layer.
        if (norm, self_weight) not in self._radii:
            arguments: dict[str, Any] = {"self_weight": self_weight}
            if self.depth is None or self.depth < 2:
                radii = spectral_radius(self.graph, norm, self.edge_weight, **arguments)[None]
            else:
                radii = growth_by_layer(self.graph, norm, self.depth, self.edge_weight, **arguments)
            self._radii[norm, self_weight] = radii
        radii = self._radii[norm, self_weight]
        largest = radii.log().sum(0).argmax() if radii.shape[1] else 0
        return float(radii[min(len(self._asked), len(radii)) - 1, largest])

    def radii_of_graphs(self) -> list[tuple[Tensor, int]]:
        """Radii that were asked for, of each graph of the batch, and the number of layers."""
        own = [(radii.log().mean(0).exp(), self.depth or 1) for radii in self._radii.values()]
        others = [made for made in self._made.values() if isinstance(made, GraphContext)]
        return own + [pair for other in others for pair in other.radii_of_graphs()]

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What `make` returns; further layers that ask by the same key get the same."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def weighted(self, weights: Callable[[AnyGraph, Tensor], Tensor] | None) -> GraphContext:
        """Return the context of a layer that takes no edge weights, or makes others of them.

        `weights` is called with graph and weights; None is for a layer that takes none.
        """
        if self.edge_weight is None or isinstance(self, WithoutGraph):
            return self
        new = None if weights is None else weights(self.graph, self.edge_weight)
        return self.once(weights, lambda: self._changed(edge_weight=new))

    def of_relation(self) -> GraphContext:
        """Return the context of a layer of one relation: only as a whole has the graph a radius."""
        if self.graph is None or isinstance(self, WithoutGraph):
            return self
        return self.once("relation", lambda: self._changed(graph=None, edge_weight=None))

    def _changed(self, **changes: Any) -> GraphContext:
        other = replace(self, **changes)
        object.__setattr__(other, "left", self.left)
        object.__setattr__(other, "_asked", self._asked)
        return other


@dataclass(frozen=True)
class WithoutGraph(GraphContext):
    """For the schemes that leave the graph out: every spectral radius counts as 1."""

    aggregations: list[Norm] = field(default_factory=list, init=False, repr=False)

    def spectral_radius(self, module: nn.Module, norm: Norm, self_weight: float = 0.0) -> float:
        """Return 1, and count."""
        self.aggregations.append(norm)
        return 1.0


Hook = Callable[[nn.Module, GraphContext], list[Stage]]
_HOOKS: dict[type[nn.Module], Hook] = {}


def register_initializer(module_class: type[nn.Module]) -> Callable[[Hook], Hook]:
    """Decorate the function that describes `module_class` to all initialization schemes.

    Parameters
    ----------
    module_class : type
        A subclass of ``torch.nn.Module``; its own subclasses inherit the hook.

    Returns
    -------
    callable
        Decorator for a function ``hook(module, context) -> list of stages``, where a stage is a
        list of :class:`LinearMap` that act side by side and ``context`` is a
        :class:`GraphContext`.

    Raises
    ------
    ValueError
        If the class has a hook already.

    Examples
    --------
    >>> import torch
    >>> class Scaled(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.kernel = torch.nn.Parameter(torch.empty(400, 300))
    >>> @register_initializer(Scaled)
    ... def describe(module, context):
    ...     return [[LinearMap(module, module.kernel, fan_in=400, fan_out=300)]]
    >>> from dgl_deepgnn.init import critical_
    >>> model = critical_(Scaled())
    >>> round(400 * model.kernel.var().item(), 1)
    1.0
    """

    def enter(hook: Hook) -> Hook:
        if module_class in _HOOKS:
            raise ValueError(f"{module_class.__name__} has an initializer hook already.")
        _HOOKS[module_class] = hook
        return hook

    return enter


def collect_stages(module: nn.Module, context: GraphContext = GraphContext()) -> list[Stage]:
    """Stages of a module tree in the order in which its submodules were defined.

    Parameters that no scheme draws (normalization, attention) are reset by the way: collecting is
    part of initializing.

    Parameters
    ----------
    module : nn.Module
        Any tree of modules that have hooks, and containers of them.
    context : GraphContext
        What the initialization is computed for.

    Returns
    -------
    list of list of LinearMap
        One list a stage.

    Raises
    ------
    UnknownModuleError
        If ``context.strict`` and a module's class is not known.
    DGLError
        If the scale of a module needs the graph and there is none, or `module` is not one.
    """
    require_module(module)
    load_plugins()
    try:
        return _collect(module, context)
    except UnknownModuleError as error:
        raise UnknownModuleError(error.module, error.reason, root=module) from None


def require_module(module: object, graph: object = None) -> None:
    """Raise if graph and module stand in each other's place."""
    if isinstance(graph, nn.Module):
        raise DGLError(f"{_ORDER} Where the graph belongs stands a {_kind(graph)}.")
    if not isinstance(module, nn.Module):
        raise DGLError(f"{_ORDER} Where the module belongs stands a {_kind(module)}.")


def _collect(module: nn.Module, context: GraphContext) -> list[Stage]:
    hook = next((_HOOKS[base] for base in type(module).__mro__ if base in _HOOKS), None)
    try:
        if hook is not None:
            stages = hook(module, context)
            for linear in (linear for stage in stages for linear in stage):
                _require_drawable(module, linear.weight)
            return stages
        if _is_layer(module):
            raise UnknownModuleError(
                module,
                f"No initializer is known for {type(module).__name__}; describe it with "
                "dgl_deepgnn.init.register_initializer.",
            )
    except UnknownModuleError:
        if context.strict:
            raise
        context.left.append(module)
        if not context.into_unknown:
            return []
    return [stage for child in module.children() for stage in _collect(child, context)]


def _kind(value: object) -> str:
    return type(value).__name__


def _is_layer(module: nn.Module) -> bool:
    """Whether a module without hook has weights of its own, rather than being a container."""
    if is_dgl_layer(module):
        return any(True for _ in module.parameters())
    return any(True for _ in module.parameters(recurse=False))


def is_dgl_layer(module: nn.Module) -> bool:
    """Whether it is one of DGL's layers: what surrounds the ``Linear`` inside is not known."""
    return any(
        base.__module__.startswith("dgl.nn.") and not issubclass(base, nn.Sequential)
        for base in type(module).__mro__
    )


def is_dgl_convolution(module: nn.Module) -> bool:
    """Whether it is one of DGL's convolutions, or of a class derived from one."""
    return any(base.__module__.startswith("dgl.nn.pytorch.conv") for base in type(module).__mro__)


def _require_drawable(module: nn.Module, weight: Tensor) -> None:
    if nn.parameter.is_lazy(weight):
        reason = "has no shape yet; call the model once before it is initialized."
    elif not isinstance(weight, nn.Parameter):
        reason = "is computed from others (weight_norm or another parametrization); initialize it "
        reason += "first and parametrize it then."
    else:
        return
    raise UnknownModuleError(module, f"The weight of a {type(module).__name__} {reason}")


def multiply_radius(stage: Stage, radius: float) -> Stage:
    """The same maps behind one more aggregation of spectral radius `radius`."""
    return [replace(m, spectral_radius=m.spectral_radius * radius) for m in stage]


def fixup_branch(stages: list[Stage], num_branches: int) -> list[Stage]:
    r"""Scale the maps of one residual branch after Fixup (arXiv:1901.09321).

    The last stage of the branch starts at zero; of m > 1 stages the others are scaled by
    :math:`L^{-1/(2m-2)}`, with L the number of branches.
    """
    inner = num_branches ** (-1 / (2 * len(stages) - 2)) if len(stages) > 1 else 1.0
    scaled = [[replace(m, scale=m.scale * inner) for m in stage] for stage in stages]
    return scale_last(scaled, 0.0)


def scale_last(stages: list[Stage], factor: float) -> list[Stage]:
    """Draw the maps of the last stage smaller by this factor; 0 starts them at zero."""
    return [
        [replace(m, scale=factor * m.scale) for m in stage] if stage is stages[-1] else stage
        for stage in stages
    ]
