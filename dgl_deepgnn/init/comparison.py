"""Published initialization schemes that the critical initialization is compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, as_graph
from dgl_deepgnn.init.hooks import (
    GraphContext,
    LinearMap,
    WithoutGraph,
    collect_stages,
    fixup_branch,
)
from dgl_deepgnn.init.schemes import critical_std, draw
from dgl_deepgnn.operator.aggregation import aggregation_operator

__all__ = ["fixup_", "lsuv_", "rezero_", "virgo_"]

M = TypeVar("M", bound=nn.Module)


def fixup_(
    module: M,
    branches: Iterable[nn.Module],
    graph: AnyGraph | None = None,
    *,
    edge_weight: Tensor | None = None,
    output_layer: bool = True,
    strict: bool = True,
) -> M:
    r"""Fixup: every residual branch starts at zero, the network as its skip connections.

    The last layer of each of the L branches is zero; in a branch of m > 1 layers the
    others are critical times :math:`L^{-1/(2m-2)}`. Everything outside the branches is critical.
    Source: Zhang et al., arXiv:1901.09321, without its scalar biases and multipliers.

    Parameters
    ----------
    module : nn.Module
        The network. Changed in place.
    branches : iterable of nn.Module
        The submodules whose outputs the network adds to their inputs.
    graph, edge_weight, output_layer, strict
        As in :func:`critical_`; the graph is needed where an aggregation is a sum.

    Returns
    -------
    nn.Module
        The same module.

    Raises
    ------
    DGLError
        If there is no branch, or one is not part of `module` or has no weights; otherwise as
        :func:`critical_`.

    Examples
    --------
    >>> model = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])
    >>> fixup_(model, branches=model[1:3])[1].weight.abs().max().item()
    0.0
    """
    context = GraphContext(graph, edge_weight, strict)
    branches = list(branches)
    scales = {
        id(linear.weight): linear.scale
        for branch in branches
        for stage in fixup_branch(collect_stages(branch, context), len(branches))
        for linear in stage
    }
    _draw_critical(module, branches, scales, context, output_layer)
    return module


def rezero_(
    module: M,
    branches: Iterable[nn.Module],
    graph: AnyGraph | None = None,
    *,
    edge_weight: Tensor | None = None,
    output_layer: bool = True,
    strict: bool = True,
) -> M:
    r"""ReZero: a trainable factor, zero at first, on every residual branch.

    All weights are critical. Each branch gets a parameter ``rezero_gate`` that a forward hook
    multiplies its output with; it is in ``parameters()`` and ``state_dict()``, so make the
    optimizer afterwards, and call this on a new model before loading such a state.
    Source: Bachlechner et al., arXiv:2003.04887.

    Parameters
    ----------
    module : nn.Module
        The network. Changed in place.
    branches : iterable of nn.Module
        The submodules whose outputs the network adds to their inputs.
    graph, edge_weight, output_layer, strict
        As in :func:`critical_`; the graph is needed where an aggregation is a sum.

    Returns
    -------
    nn.Module
        The same module.

    Raises
    ------
    DGLError
        As in :func:`fixup_`.

    Examples
    --------
    >>> model = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])
    >>> rezero_(model, branches=model[1:3])[1](torch.ones(2, 8)).abs().max().item()
    0.0
    """
    context = GraphContext(graph, edge_weight, strict)
    branches = list(branches)
    for branch in branches:
        branch._parameters.pop("rezero_gate", None)
    scales = {
        id(linear.weight): 1.0
        for branch in branches
        for stage in collect_stages(branch, context)
        for linear in stage
    }
    _draw_critical(module, branches, scales, context, output_layer)
    for branch in branches:
        like = next(branch.parameters())
        # Without dimensions, so that it does not promote outputs of lower precision.
        gate = nn.Parameter(torch.zeros((), dtype=like.dtype, device=like.device))
        branch.register_parameter("rezero_gate", gate)
        if _gate not in branch._forward_hooks.values():
            branch.register_forward_hook(_gate)
    return module


def _gate(branch: Any, inputs: Any, output: Tensor) -> Tensor:
    return branch.rezero_gate * output


def _draw_critical(
    module: nn.Module,
    branches: list[nn.Module],
    scales: dict[int, float],
    context: GraphContext,
    output_layer: bool,
) -> None:
    """Draw all weights critically, times the scales given by weight."""
    inside = {id(part) for part in module.modules()}
    for index, branch in enumerate(branches):
        if id(branch) not in inside or not any(id(p) in scales for p in branch.parameters()):
            raise DGLError(
                f"branches[{index}], a {type(branch).__name__}, is not a submodule of the "
                f"{type(module).__name__} with weights. Name the submodules that have a residual "
                "connection around them."
            )
    if not branches:
        raise DGLError("branches is empty: name the submodules with a residual connection.")
    stages = [
        [replace(linear, scale=scales.get(id(linear.weight), linear.scale)) for linear in stage]
        for stage in collect_stages(module, context)
    ]
    draw(stages, critical_std, output_layer)


def lsuv_(
    module: M,
    graph: AnyGraph,
    feat: Tensor,
    *,
    tol: float = 0.1,
    max_iterations: int = 10,
    strict: bool = True,
) -> M:
    """Layer-sequential unit-variance initialization.

    Every weight is orthonormal; then, in the order in which ``module(graph, feat)`` calls the
    layers, each layer's weights are divided by the standard deviation of its output until that
    has variance one. Where a layer applies its activation itself, the output after it counts.
    Biases are zero; a layer that the call does not reach stays orthonormal.
    Source: Mishkin and Matas, arXiv:1511.06422, whose `tol` and `max_iterations` are the defaults.

    Parameters
    ----------
    module : nn.Module
        The network, called as ``module(graph, feat)`` in evaluation mode. Changed in place.
    graph : DGLGraph
        The graph of `feat`.
    feat : Tensor
        Node features that are typical of the data, shape (N, in_feats).
    tol : float
        How far from one a variance may stay.
    max_iterations : int
        Rescalings of one layer at most.
    strict : bool
        As in :func:`critical_`.

    Returns
    -------
    nn.Module
        The same module.

    Raises
    ------
    DGLError
        If a class is unknown, or the output of a layer is constant or not finite.

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(50, 300).add_self_loop()
    >>> model = dgl.nn.Sequential(dgl.nn.GraphConv(8, 16), dgl.nn.GraphConv(16, 4))
    >>> feat = torch.randn(50, 8)
    >>> bool(0.9 < lsuv_(model, graph, feat)(graph, feat).var() < 1.1)
    True
    """
    maps: dict[nn.Module, list[LinearMap]] = {}
    for stage in collect_stages(module, WithoutGraph(strict=strict)):
        for linear in stage:
            maps.setdefault(linear.owner, []).append(linear)
            with torch.no_grad():
                # The factorisation does not exist in half precision.
                linear.weight.copy_(nn.init.orthogonal_(torch.empty(linear.weight.shape)))
                if linear.bias is not None:
                    linear.bias.zero_()
    done: set[nn.Module] = set()

    def rescale(
        owner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor:
        if owner in done:
            return output
        done.add(owner)
        for _ in range(max_iterations):
            variance = output.double().var(correction=0).item()
            if abs(variance - 1) < tol:
                break
            if not 0 < variance < float("inf"):
                raise DGLError(
                    f"The output of a {type(owner).__name__} has variance {variance}: it cannot be "
                    "scaled to one. LSUV needs features that are finite and not all zero, and "
                    "branches without a zero gate."
                )
            for linear in maps[owner]:
                linear.weight.div_(math.sqrt(variance))
            output = owner.forward(*args, **kwargs)
        return output

    handles = [owner.register_forward_hook(rescale, with_kwargs=True) for owner in maps]
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            module(graph, feat)
    finally:
        for handle in handles:
            handle.remove()
        for part, mode in training.items():
            part.training = mode
    return module


def virgo_(
    module: M,
    graph: AnyGraph,
    feat: Tensor | None = None,
    *,
    edge_weight: Tensor | None = None,
    strict: bool = True,
) -> M:
    r"""Virgo: weight variances from what message passing does to a signal on the graph.

    With :math:`A` the symmetrically normalised adjacency matrix, :math:`\bar x` the mean of each
    node's features, :math:`s_l = \lVert A^l \bar x \rVert^2` and
    :math:`r_l = \lVert (A^\top)^l 1 \rVert^2`, layer l of L has, forward and backward,

    .. math::
        f_1 = \frac{2}{n_0}, \quad f_l = \frac{2}{n_{l-1}} \frac{s_{l-1}}{s_l}, \qquad
        b_L = \frac{N}{(C - 1) r_1}, \quad b_l = \frac{2}{n_l} \frac{r_{L-l}}{r_{L-l+1}} ,

    where :math:`n_{l-1}, n_l` are its widths, N is the number of nodes and C the width of the
    output. Its weights are uniform with the harmonic mean of the two as variance, biases are zero.

    Source: Li et al., On the Initialization of Graph Neural Networks, ICML 2023
    (arXiv:2312.02622), as its authors' program computes it: there, too, every layer counts as one
    symmetrically normalised aggregation, whatever its own is, and GraphSAGE's two weights have
    the full variance each. Different here: each linear layer of a GIN's MLP counts as a layer, the
    backward recursion takes the transpose (the same on undirected graphs), and C - 1 is at least 1.

    Parameters
    ----------
    module : nn.Module
        The network. Changed in place.
    graph : DGLGraph
        The graph; it should have self-loops.
    feat : Tensor, optional
        Node features, shape (N, in_feats); without them :math:`\bar x = 1`.
    edge_weight : Tensor, optional
        Non-negative weights of the edges, shape (E,).
    strict : bool
        As in :func:`critical_`.

    Returns
    -------
    nn.Module
        The same module.

    Raises
    ------
    DGLError
        If a class is unknown, or aggregation turns the signal into zero.

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(50, 300).add_self_loop()
    >>> model = dgl.nn.Sequential(*[dgl.nn.GraphConv(16, 16) for _ in range(8)])
    >>> model = virgo_(model, graph, torch.rand(50, 16))
    """
    stages = collect_stages(module, WithoutGraph(strict=strict))
    graph = as_graph(graph)
    depth, num_nodes = len(stages), graph.num_nodes()
    ones = torch.ones(num_nodes, 1, dtype=torch.float64)
    signal = ones if feat is None else feat.detach().double().mean(1, keepdim=True).cpu()
    s = _energy_ratios(graph, signal, depth, edge_weight)
    r = _energy_ratios(graph.reverse(), ones, depth, edge_weight)
    variance: dict[int, float] = {}
    for index, stage in enumerate(stages):
        for linear in stage:
            forward = 2 / linear.fan_in * (s[index] if index else 1.0)
            if index == depth - 1:
                backward = r[0] / max(linear.fan_out - 1, 1)
            else:
                backward = 2 / linear.fan_out * r[depth - 1 - index]
            variance.setdefault(id(linear.weight), 2 / (1 / forward + 1 / backward))
    draw(stages, lambda linear, gain: math.sqrt(variance[id(linear.weight)]), uniform=True)
    return module


def _energy_ratios(
    graph: AnyGraph, signal: Tensor, depth: int, edge_weight: Tensor | None
) -> list[float]:
    """Ratios ``|A^l x|^2 / |A^(l+1) x|^2``, l = 0, 1, ...; for ones the first is N / r_1."""
    weight = None if edge_weight is None else edge_weight.detach()
    operator = aggregation_operator(graph, "both", edge_weight=weight, spectral_radius=1.0)
    ratios = []
    for _ in range(depth):
        unit = signal / signal.norm()
        signal = operator @ unit
        energy = signal.square().sum().item()
        if not 0 < energy < float("inf"):
            raise DGLError(
                "After some layers aggregation leaves nothing of the features, so Virgo has no "
                "variance for them. The graph needs self-loops (dgl.add_self_loop(graph)), the "
                "features must be finite and not average to zero at every node."
            )
        ratios.append(1 / energy)
    return ratios
