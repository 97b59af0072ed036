"""LSUV and Virgo, which the critical initialization is compared with."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, as_graph
from dgl_deepgnn.init.hooks import LinearMap, WithoutGraph, collect_stages, require_module
from dgl_deepgnn.init.running import Forward, as_called, first_tensor, kept_on_error, undisturbed
from dgl_deepgnn.init.schemes import draw
from dgl_deepgnn.operator.aggregation import aggregation_operator

__all__ = ["lsuv_", "virgo_"]

M = TypeVar("M", bound=nn.Module)


def lsuv_(
    module: M,
    graph: AnyGraph | None = None,
    feat: Tensor | None = None,
    *,
    forward: Forward | None = None,
    edge_weight: Tensor | None = None,
    tol: float = 0.1,
    max_iterations: int = 10,
    strict: bool = True,
) -> M:
    """Layer-sequential unit-variance initialization.

    Every weight is orthonormal; then, in the order in which the network calls its
    layers, each layer's weights are divided by the standard deviation of its output until that
    has variance one. Where a layer applies its activation itself, the output after it counts.
    Biases are zero; a layer that the call does not reach stays orthonormal.
    Source: Mishkin and Matas, arXiv:1511.06422, whose `tol` and `max_iterations` are the defaults.

    Parameters
    ----------
    module : nn.Module
        The network, called in evaluation mode. Changed in place, but for frozen parameters.
    graph, feat, edge_weight, forward
        How it is called, as in :func:`critical_`, on features that are typical of the data.
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
        If a class is unknown, or the output of a layer is constant or not finite. The weights are
        then what they were.

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(50, 300).add_self_loop()
    >>> model = dgl.nn.Sequential(dgl.nn.GraphConv(8, 16), dgl.nn.GraphConv(16, 4))
    >>> feat = torch.randn(50, 8)
    >>> bool(0.9 < lsuv_(model, graph, feat)(graph, feat).var() < 1.1)
    True
    """
    require_module(module)
    if feat is None and forward is None:
        raise DGLError("LSUV measures: pass graph and feat, or forward=lambda model: model(...).")
    run = as_called(graph, feat, edge_weight, forward)
    with kept_on_error(module):
        maps: dict[nn.Module, list[LinearMap]] = {}
        for stage in collect_stages(module, WithoutGraph(strict=strict)):
            for linear in stage:
                if linear.weight.requires_grad:
                    maps.setdefault(linear.owner, []).append(linear)
        # Branches that other schemes start at zero are scaled to one as well.
        scaled = [replace(linear, scale=1.0) for owned in maps.values() for linear in owned]
        draw([scaled], lambda linear, gain: max(linear.weight.shape[-2:]) ** -0.5, orthogonal=True)
        done: set[nn.Module] = set()

        def rescale(
            owner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
        ) -> Any:
            if owner in done:
                return output
            done.add(owner)
            for _ in range(max_iterations):
                features = first_tensor(output)
                if features is None:
                    break
                variance = features.double().var(correction=0).item()
                if abs(variance - 1) < tol:
                    break
                if not 0 < variance < math.inf:
                    raise DGLError(
                        f"The output of a {type(owner).__name__} has variance {variance}: it "
                        "cannot be scaled to one. LSUV needs features that are finite and not all "
                        "zero, and branches without a zero gate."
                    )
                for linear in maps[owner]:
                    linear.weight.div_(math.sqrt(variance))
                output = owner.forward(*args, **kwargs)
            return output

        handles = [owner.register_forward_hook(rescale, with_kwargs=True) for owner in maps]
        try:
            with undisturbed(module, run, graph, feat, training=False):
                run(module)
        finally:
            for handle in handles:
                handle.remove()
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
